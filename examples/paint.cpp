// paint.cpp - flis from C++: a layout made in the program, no file but model and vocabulary.
//
//     c++ paint.cpp $(pkg-config --cflags --libs flis) -o paint
//     ./paint models/flis-small.safetensors models/vocab.txt picture.png
//
// Everything that the library allocates has an owner here, so an exception frees it.
#include <flis.h>

#include <iostream>
#include <memory>
#include <stdexcept>
#include <vector>

namespace {

struct Context : flis_ctx {
    Context() { flis_init(this); }
    ~Context() { flis_free(this); }
    Context(const Context &) = delete;
    Context &operator=(const Context &) = delete;
    void check() const
    {
        if (!flis_ok(this)) throw std::runtime_error(error);
    }
};

struct Delete {
    void operator()(flis_model *model) const { flis_model_free(&model); }
    void operator()(flis_vocab *vocab) const { flis_vocab_free(vocab); }
};

struct Layout : flis_layout {
    Layout() : flis_layout() {}
    ~Layout() { flis_layout_free(this); }
};

struct Picture : flis_picture {
    Picture() : flis_picture() {}
    ~Picture() { flis_picture_free(this); }
};

// Sky above, water below, a mountain between them on the left: class ids, one a pixel.
std::vector<uint8_t> label_map(size_t side)
{
    std::vector<uint8_t> label(side * side);
    for (size_t y = 0; y < side; y++)
        for (size_t x = 0; x < side; x++) {
            const bool mountain = x < side / 2 && y > side / 4 + x / 4 && y < side * 5 / 8;
            label[y * side + x] = mountain ? 2 : y < side * 5 / 8 ? 1 : 3;
        }
    return label;
}

void paint(const char *model_path, const char *vocab_path, const char *out)
{
    Context ctx;
    std::unique_ptr<flis_vocab, Delete> vocab(flis_vocab_read(&ctx, vocab_path));
    std::unique_ptr<flis_model, Delete> model(flis_model_load(&ctx, model_path, FLIS_PARTS_PAINT));
    const size_t side = 128;
    const std::vector<uint8_t> label = label_map(side);
    Layout layout;
    flis_layout_add(&ctx, &layout, "sky", 1);
    flis_layout_add(&ctx, &layout, "mountain", 2);
    flis_layout_add(&ctx, &layout, "sea", 3);
    flis_layout_set_label(&ctx, &layout, label.data(), side, side);
    flis_options options;
    flis_options_default(&options);
    options.width = options.height = side;
    options.sampling.steps = 20;
    options.seed = 7;
    Picture picture;
    flis_model_generate(&ctx, model.get(), vocab.get(), &layout, &options, &picture);
    flis_write_png(&ctx, out, &picture, nullptr);
    ctx.check(); // the first failure of all of the above
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 4) {
        std::cerr << "usage: paint MODEL VOCAB OUT.png\n";
        return 2;
    }
    try {
        paint(argv[1], argv[2], argv[3]);
    } catch (const std::exception &failure) {
        std::cerr << "paint: " << failure.what() << "\n";
        return 1;
    }
    return 0;
}
