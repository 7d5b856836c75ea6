"""paint.py - flis from Python: loads a model once and paints every layout that it is given.

    PYTHONPATH=tools/python python3 examples/paint.py models/flis-small.safetensors models/vocab.txt examples/harbour.json

writes harbour.png, 128 x 128 pixels, into the working directory. No packages are needed; the library is libflis.so
(`make shared`, or FLIS_LIBRARY names it).
"""
import os
import sys

import flis


def main(arguments):
    if len(arguments) < 3:
        sys.stderr.write("usage: paint.py MODEL VOCAB LAYOUT.json...\n")
        return 2
    f = flis.Flis()
    try:
        vocab, model = f.vocab(arguments[1]), f.load(arguments[0])
        for layout in arguments[2:]:
            picture = model.generate(vocab, layout=layout, width=128, height=128, seed=7)
            f.write_png(os.path.basename(layout).split(".")[0] + ".png", picture)
    except flis.Error as failure:
        sys.stderr.write("paint.py: %s\n" % failure)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
