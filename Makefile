# flis: build, test, install. `make help` lists the targets. Needs GNU make and a C99 compiler.

PREFIX  ?= /usr/local
DESTDIR ?=
SHARED  ?= ../shared
CFLAGS_GIVEN := $(CFLAGS)
VERSION := $(shell sed -n 's/^\#define FLIS_VERSION "\(.*\)"/\1/p' flis.h)

LIBRARY  := flis tensor clip unet vae sampler
# One folder per program. USES_… below names the programs whose objects (without main.o) a program reuses.
PROGRAMS := $(filter-out common flis,$(patsubst tools/%/main.c,%,$(wildcard tools/*/main.c)))
COMMON   := $(basename $(wildcard tools/common/*.c))
sources   = $(basename $(wildcard tools/$(1)/*.c))
parts     = $(filter-out tools/$(1)/main,$(call sources,$(1)))

# ---- What the compiler accepts ---------------------------------------------------------------------------------------
# $(call try,FLAGS,PROGRAM) is FLAGS if a program builds and links with them, else nothing.

hash := \#
comma := ,
try = $(shell mkdir -p build && p=build/probe.$$$$ && echo '$(or $(2),int main(void) { return 0; })' | \
        tr '@' '\n' > $$p.c && $(CC) -Werror $(1) $$p.c -o $$p >/dev/null 2>&1 && echo '$(1)'; rm -rf build/probe.$$$$*)

ifneq ($(filter-out clean help uninstall format platforms,$(or $(MAKECMDGOALS),all)),)
NATIVE := $(or $(call try,-march=native),$(call try,-mcpu=native)) $(call try,-mprefer-vector-width=512)
# Without this flag gcc for s390 computes floats as doubles in ISO C mode. Elsewhere the flag changes nothing (x87 is still
# refused).
FLOATS := $(call try,-fexcess-precision=fast)
DEPS   := $(or $(call try,-MMD -MP),$(call try,-MD))
# Without errno, compilers vectorise loops that call sqrt. This changes no bit.
ERRNO := $(call try,-fno-math-errno)
# gcc would replace the loops that clear a tile by `rep stos`, which takes 30 cycles: a fifth of the kernel's time where K is
# small.
LOOPS := $(call try,-fno-tree-loop-distribute-patterns)
ifneq ($(OPENMP),0)
OMP := $(call try,-fopenmp,$(hash)include <omp.h>@int main(void) { return omp_get_max_threads() < 1; })
endif
endif

# ---- Variants: each has its own set of objects -----------------------------------------------------------------------
# release: objects in build/release, programs and libraries in the root folder and bin. 64, or a name that ends in -64: double
# precision. naive: every operation runs the loop that defines it. test: with sanitizers. shared: position-independent, for
# libflis.so. portable, portable-64: what `make install` installs: position-independent, for any machine of this kind.

VARIANT ?= release
B       := build/$(VARIANT)
O       := $(B)/
FLIS    := $(O)flis
ifeq ($(VARIANT),release)
O       :=
FLIS    := flis
else ifeq ($(VARIANT),64)
FLIS    := flis64
else ifeq ($(VARIANT),naive)
FLIS    := flis-naive
DEFINES := -DFLIS_NAIVE
OMP     :=
else ifeq ($(VARIANT),shared)
O       :=
endif

# The functions of the double library have other names, so that the two libraries cannot be mixed. The header that maps flis.h's
# names to them is included first in every file, and is installed.
NAME := flis
ifneq ($(filter 64 %-64,$(VARIANT)),)
NAME    := flis64
NAMES   := $(B)/flis64.h
DEFINES := -DFLIS64_BUILD -include $(NAMES)
endif

ifneq ($(filter test%,$(VARIANT)),)
SANITIZE := $(call try,-fsanitize=address$(comma)undefined -fno-sanitize-recover=all)
CFLAGS   ?= -O2 -g $(NATIVE)
EXTRA    := -g -fno-omit-frame-pointer $(SANITIZE)
else ifneq ($(filter portable%,$(VARIANT)),)
CFLAGS   ?= -O3 $(if $(filter portable-v3%,$(VARIANT)),-march=x86-64-v3)
EXTRA    := -fPIC
else
CFLAGS   ?= -O3 $(NATIVE)
EXTRA    := $(if $(filter shared,$(VARIANT)),-fPIC)
endif

LIB     := $(O)lib$(NAME).a
SO      := $(O)lib$(NAME).so
SONAME  := lib$(NAME).so.$(firstword $(subst ., ,$(VERSION)))
TOOLS   := $(B)/libtools.a
STRICT  := -std=c99 -pedantic -Wall -Wextra -Wshadow -ffp-contract=off $(FLOATS) $(ERRNO) $(LOOPS) $(if $(filter 1,$(WERROR)),-Werror)
COMPILE  = $(CC) $(CPPFLAGS) -I. $(DEFINES) $(CFLAGS) $(STRICT) $(EXTRA) $(OMP)
LINK     = $(CC) $(CFLAGS) $(EXTRA) $(OMP) $(LDFLAGS)
# Installed programs load libflis.so: on Linux the loader chooses the build for the processor (see install).
LINUX    := $(filter Linux,$(shell uname -s))
ifneq ($(and $(LINUX),$(filter portable%,$(VARIANT))),)
PROGRAM_LIB := $(SO)
PROGRAM_LINK = $(LINK) -Wl,-rpath,'$$ORIGIN/../lib'
else
PROGRAM_LIB := $(LIB)
PROGRAM_LINK = $(LINK)
endif
LIBS     = $(LDLIBS) -lm

# ---- Targets ---------------------------------------------------------------------------------------------------------

.PHONY: all demo model paper lis test check suite golden vectors mutants mistakes fuzz platforms check-shared check-torch \
    check-truth check-pil check-evaluate check-train flis64 naive shared install installed uninstall clean help format FORCE
.DELETE_ON_ERROR:
.SUFFIXES:

all: $(FLIS) $(LIB) $(PROGRAMS:%=$(O)bin/%)

MODEL := models/flis-small.safetensors

# Of the first eight seeds, seed 7 gives the boat with the clearest sails.
demo: $(FLIS)
	./flis generate -m $(MODEL) -j examples/harbour.json --size 128x128 --scale 2 --seed 7 -o demo.png
	@echo "$(CURDIR)/demo.png"

# `make test` runs every kind of check on its smallest cases, `make check` runs all cases. The parts run in parallel, the longest
# first; the last line is the total.
LEVEL ?= quick
JOBS  := $(shell nproc 2>/dev/null || echo 2)
PARTS  = spec house replay digest train unit evaluate cli field_cli field_names field_layouts field_checkpoints field_config lis library outputs naive mutants mistakes vectors $(if $(filter full,$(LEVEL)),double trained)
QUICK := $(if $(filter full,$(LEVEL)),,-q)
part   = @sh tests/sh/part.sh $@

test:
	@echo "make test: every kind of check on small cases; about 10 minutes on 2 cores (make check: all checks, about 30)"
	@+$(MAKE) --no-print-directory VARIANT=$(if $(filter test%,$(VARIANT)),$(VARIANT),test) LEVEL=quick suite

check:
	@echo "make check: all checks; about 30 minutes on 2 cores (make test: every kind of check on small cases, about 10 minutes)"
	@+$(MAKE) --no-print-directory VARIANT=$(if $(filter test%,$(VARIANT)),$(VARIANT),test) LEVEL=full suite

suite:
	@echo "building with sanitizers"
	@+$(MAKE) --no-print-directory -s -j$(JOBS) all $(B)/run $(B)/replay
	@$(if $(SANITIZE),,echo "note: $(CC) has no address and undefined sanitizers; testing without them")
	@+$(MAKE) --no-print-directory -s -j$(JOBS) $(PARTS:%=$(B)/%.count)
	@sh tests/sh/total.sh $(PARTS:%=$(B)/%.count)

$(B)/unit.count: FORCE
	$(part) env OMP_WAIT_POLICY=passive $(B)/run $(QUICK) -j 1
$(B)/spec.count: FORCE
	$(part) sh tests/sh/spec.sh
$(B)/house.count: FORCE
	$(part) sh tests/sh/house.sh
$(B)/cli.count: FORCE
	$(part) sh tests/sh/cli.sh $(FLIS) $(O)bin/synth
$(B)/field_cli.count: FORCE
	$(part) sh tests/sh/field_cli.sh $(FLIS) $(O)bin/synth
$(B)/outputs.count: FORCE
	$(part) sh tests/sh/field_outputs.sh $(FLIS) $(O)bin
$(B)/field_layouts.count: FORCE
	$(part) sh tests/sh/field_layouts.sh $(FLIS)
$(B)/field_checkpoints.count: FORCE
	$(part) sh tests/sh/field_checkpoints.sh $(O)bin/ckpt2safetensors
$(B)/field_config.count: FORCE
	$(part) sh tests/sh/field_config.sh
$(B)/field_names.count: FORCE
	$(part) sh tests/sh/field_names.sh $(FLIS) $(O)bin/synth
$(B)/train.count: FORCE
	$(part) sh tests/sh/train.sh quick $(O)bin/train $(O)bin/world $(O)bin/evaluate $(FLIS)
$(B)/evaluate.count: FORCE
	$(part) sh tests/sh/evaluate.sh $(O)bin/evaluate
$(B)/lis.count: FORCE
	$(part) sh tests/sh/lis.sh $(FLIS) $(O)bin
$(B)/digest.count: FORCE
	$(part) sh -c '$(FLIS) digest | diff - tests/golden/digest.txt'
$(B)/vectors.count: FORCE
	$(part) sh tests/sh/mutations.sh vectors $(B)/vectors
$(B)/mutants.count: FORCE
	$(part) env ROWS=$(if $(QUICK),15,1) sh tests/sh/mutations.sh mutants $(B)/mutants
$(B)/mistakes.count: FORCE
	$(part) env ROWS=$(if $(QUICK),21,1) sh tests/sh/mutations.sh mistakes $(B)/mistakes
$(B)/library.count: FORCE
	$(part) sh tests/sh/library.sh $(LEVEL)
$(B)/naive.count: FORCE
	@+$(MAKE) --no-print-directory -s VARIANT=naive flis-naive
	$(part) sh -c './flis-naive digest | diff - tests/golden/digest.txt'
$(B)/replay.count: FORCE
	$(part) sh -c 'for d in tests/fuzz/corpus/*; do $(B)/replay $${d##*/} $$d/* || exit 1; done'
# Gradients in double precision, where finite differences are most accurate.
$(B)/double.count: FORCE
	@+$(MAKE) --no-print-directory -s VARIANT=64 build/64/run
	$(part) build/64/run 'grad_*' 'train_*'

# All of training without sanitizers, which take half an hour for it and run its quick form anyway.
$(B)/trained.count: FORCE
	@+$(MAKE) --no-print-directory -s VARIANT=release all
	$(part) sh tests/sh/train.sh full bin/train bin/world bin/evaluate ./flis

# Trains the default model from scratch, and runs the paper's experiments on it. Takes hours; can be stopped and resumed.
model: all
	sh tools/train/model.sh build/model

paper: all
	bin/paper --model build/model/tuned-2.safetensors --plain build/model/again.safetensors \
	    --segmenter build/model/judge-2.safetensors --steps 20 -o docs/paper.html

# The chain of the paper's Table 1 on the small world: its data set in COCO-Stuff's folders, 200 pictures by `flis lis` in four
# shards, then the measures. N=, STEPS= and SHARDS= change the numbers.
lis: all
	sh tools/paper/lis.sh build/lis

# replay runs the readers over the corpora that fuzzing found, as a part of the suite. `make fuzz` runs the fuzzer (clang).
FUZZED := $(call parts,ckpt2safetensors)
$(B)/replay: $(B)/tests/fuzz/fuzz.o $(FUZZED:%=$(B)/%.o) $(TOOLS) $(LIB)
	$(LINK) $^ $(LIBS) -o $@

# Traced comparisons guide the fuzzer to magic numbers, and halve its speed. COVERAGE=-fno-sanitize-coverage=trace-cmp disables
# them, for long runs over a corpus that already contains the magic numbers.
RUNS    ?= 10000000
COVERAGE ?=
TARGETS ?= $(notdir $(wildcard tests/fuzz/corpus/*))
fuzz:
	@mkdir -p build/fuzz
	clang -O2 -g -std=c99 -ffp-contract=off -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all $(COVERAGE) -I. \
	    tests/fuzz/fuzz.c $(FUZZED:%=%.c) $(COMMON:%=%.c) $(LIBRARY:%=%.c) -lm -o build/fuzz/fuzz
	for t in $(TARGETS); do case $$t in pickle) l=8192;; json|layout|npy) l=2048;; pgm|vocab|labelmap) l=1024;; tokens) l=256;; *) l=4096;; esac; \
	    mkdir -p build/fuzz/$$t; echo "fuzz: $$t, see build/fuzz/$$t.log"; \
	    FLIS_FUZZ=$$t build/fuzz/fuzz -runs=$(RUNS) -max_len=$$l -timeout=20 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/crash-$$t- build/fuzz/$$t tests/fuzz/corpus/$$t >build/fuzz/$$t.log 2>&1 || exit 1; done

# Writes the conformance vectors again; their bytes must not change.
golden: bin/golden
	bin/golden tests/golden

# Deliberate mistakes, each of which a check must detect (tests/sh/mutations.sh).
vectors mutants mistakes:
	CC='$(CC)' VERBOSE=1 sh tests/sh/mutations.sh $@ build/$@

platforms:
	@MAKE='$(MAKE)' sh tests/sh/platforms.sh $(PLATFORMS)

# Checks that are not part of `make check`. check-shared and check-truth need the shared oracle; check-torch needs Python with
# PyTorch, check-truth needs Python with numpy and 12 GB of memory.
CHECKS := $(basename $(notdir $(wildcard tests/external/shared_*.c)))
check-shared: all $(CHECKS:%=build/release/%)
	@set -e; for c in $(CHECKS); do echo "$$c"; build/release/$$c $(SHARED); done; echo "check-shared: all passed"

PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
check-torch: all
	$(PYTHON) tests/external/checkpoints_check.py bin/ckpt2safetensors
	$(PYTHON) tests/external/torch_check.py ./flis bin/synth
	$(PYTHON) tests/external/torch_port.py ./flis bin/synth
	$(PYTHON) tests/external/compare_check.py ./flis bin/synth bin/compare

# Needs Python with numpy and Pillow; says so and passes without.
check-pil: $(B)/pictures
	$(PYTHON) tests/external/pictures_check.py $(B)/pictures

# The measures against numpy and scipy; says so and passes without numpy.
check-evaluate: bin/evaluate
	$(PYTHON) tests/external/evaluate_check.py bin/evaluate

# The recipe "authors" step by step against PyTorch (minutes). Needs Python with PyTorch and Pillow; says so and passes without.
check-train: bin/train bin/synth
	$(PYTHON) tests/external/train_check.py bin/train bin/synth $(SHARED)

check-truth: all flis64
	$(PYTHON) tests/external/truth.py ./flis64 bin/synth $(SHARED)/oracle

ifneq ($(VARIANT),64)
flis64:
	@+$(MAKE) --no-print-directory VARIANT=64 flis64 build/64/libflis64.a
endif

# Every operation runs only the loop that defines it. The results have the same bits.
naive:
	@+$(MAKE) --no-print-directory VARIANT=naive flis-naive

# libflis.so for this machine, with OpenMP: what tools/python/flis.py loads.
shared:
	@+$(MAKE) --no-print-directory VARIANT=shared libflis.so

# The programs are installed as flis-NAME. The code is portable by default. Portable code is 40 times slower on x86-64 Linux,
# because fma must be emulated there. Therefore a second build of the shared library is installed beside it; the loader chooses
# that build if the processor has AVX2 and FMA (glibc-hwcaps). docs/embedding.md has the figures.
HWCAPS = $(if $(CFLAGS_GIVEN),,$(if $(LINUX),$(call try,-march=x86-64-v3)))
install:
	@$(if $(CFLAGS_GIVEN),:,echo "note: portable code$(if $(HWCAPS),$(comma) and a fast library for processors with FMA$(comma) chosen at start); for this machine alone: make install CFLAGS='-O3 -march=native'")
	@$(if $(HWCAPS),$(MAKE) --no-print-directory VARIANT=portable-v3 build/portable-v3/libflis.so)
	@$(if $(HWCAPS),$(MAKE) --no-print-directory VARIANT=portable-v3-64 build/portable-v3-64/libflis64.so)
	@+$(MAKE) --no-print-directory VARIANT=portable-64 build/portable-64/flis build/portable-64/libflis64.a build/portable-64/libflis64.so
	@+$(MAKE) --no-print-directory VARIANT=portable all build/portable/libflis.so
	@+$(MAKE) --no-print-directory VARIANT=portable HWCAPS='$(HWCAPS)' installed

# $(call pkg_config,NAME,DESCRIPTION)
define pkg_config
	printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$${prefix}/lib' 'includedir=$${prefix}/include' '' 'Name: $(1)' \
	    'Description: $(2)' 'Version: $(VERSION)' 'Libs: -L$${libdir} -l$(1)' 'Libs.private: $(strip $(OMP) $(LIBS))' \
	    'Cflags: -I$${includedir}' > $(B)/$(1).pc
	install -m 644 $(B)/$(1).pc $(LIBDIR)/pkgconfig/
	install -m 644 build/portable$(if $(filter %64,$(1)),-64)/lib$(1).a $(LIBDIR)/
	install -m 755 build/portable$(if $(filter %64,$(1)),-64)/lib$(1).so $(LIBDIR)/lib$(1).so.$(VERSION)
	ln -sf lib$(1).so.$(VERSION) $(LIBDIR)/lib$(1).so.$(firstword $(subst ., ,$(VERSION)))
	ln -sf lib$(1).so.$(VERSION) $(LIBDIR)/lib$(1).so
	rm -f $(LIBDIR)/glibc-hwcaps/x86-64-v3/lib$(1).so.*
	$(if $(HWCAPS),mkdir -p $(LIBDIR)/glibc-hwcaps/x86-64-v3)
	$(if $(HWCAPS),install -m 755 build/portable-v3$(if $(filter %64,$(1)),-64)/lib$(1).so $(LIBDIR)/glibc-hwcaps/x86-64-v3/lib$(1).so.$(firstword $(subst ., ,$(VERSION))))
endef
LIBDIR = "$(DESTDIR)$(PREFIX)/lib"
DATA   = "$(DESTDIR)$(PREFIX)/share/flis"

installed:
	mkdir -p "$(DESTDIR)$(PREFIX)/bin" $(LIBDIR)/pkgconfig "$(DESTDIR)$(PREFIX)/include" \
	    "$(DESTDIR)$(PREFIX)/share/man/man1" $(DATA)/golden $(DATA)/python
	install -m 755 build/portable/flis "$(DESTDIR)$(PREFIX)/bin/flis"
	install -m 755 build/portable-64/flis "$(DESTDIR)$(PREFIX)/bin/flis64"
	for p in $(PROGRAMS); do install -m 755 build/portable/bin/$$p "$(DESTDIR)$(PREFIX)/bin/flis-$$p" || exit 1; done
	install -m 644 flis.h build/portable-64/flis64.h "$(DESTDIR)$(PREFIX)/include"
	$(call pkg_config,flis,freestyle layout-to-image synthesis in portable C99)
	$(call pkg_config,flis64,freestyle layout-to-image synthesis in portable C99; computes in double)
	install -m 644 tools/flis/flis.1 "$(DESTDIR)$(PREFIX)/share/man/man1/flis.1"
	install -m 644 tests/golden/manifest.json tests/golden/inputs.safetensors tests/golden/outputs.safetensors $(DATA)/golden
	install -m 644 tools/python/flis.py tools/torch_trace.py $(DATA)/python
	for f in $(MODEL) models/vocab.txt; do if [ -f "$$f" ]; then install -m 644 "$$f" $(DATA); fi; done

uninstall:
	rm -f "$(DESTDIR)$(PREFIX)/bin/flis" "$(DESTDIR)$(PREFIX)/bin/flis64" $(PROGRAMS:%="$(DESTDIR)$(PREFIX)/bin/flis-%") \
	    "$(DESTDIR)$(PREFIX)/include/flis.h" "$(DESTDIR)$(PREFIX)/include/flis64.h" "$(DESTDIR)$(PREFIX)/share/man/man1/flis.1"
	for n in flis flis64; do rm -f $(LIBDIR)/lib$$n.a $(LIBDIR)/lib$$n.so* $(LIBDIR)/glibc-hwcaps/x86-64-v3/lib$$n.so.* \
	    $(LIBDIR)/pkgconfig/$$n.pc; done
	rm -rf $(DATA)

clean:
	rm -rf $(filter-out build/model,$(wildcard build/*)) bin flis flis64 flis-naive libflis.* demo.png

FORMATTED = flis.h *.c tools/*/*.[ch] tests/*/*.[ch]
format:
	clang-format -i $(wildcard $(FORMATTED))

help:
	@echo "make               flis, libflis.a and bin/*"
	@echo "make demo          build flis, then paint demo.png with the small model"
	@echo "make test          every kind of check on its smallest cases, with sanitizers (about 10 minutes on 2 cores)"
	@echo "make check         all checks (about 30 minutes); one by name: build/test/run 'ops_*', build/test/run -l"
	@echo "make golden        write the conformance vectors in tests/golden again: git diff must stay empty"
	@echo "make vectors       wrong variants of the sources: the vectors that are meant to detect each must reject it"
	@echo "make mutants       put each common mistake into a copy of the sources: a check must detect it"
	@echo "make mistakes      check what bin/compare reports for ports with one deliberate mistake each (minutes)"
	@echo "make fuzz          run clang's fuzzer on every reader (RUNS=$(RUNS), TARGETS='png json')"
	@echo "make model         train the default model from scratch, into build/model (hours; resumes)"
	@echo "make paper         run the paper's experiments on that model: docs/paper.html"
	@echo "make lis           the paper's Table 1 on the small world: 200 pictures in 4 shards, mIoU, distance (2 minutes; resumes)"
	@echo "make platforms     compare the digest from other compilers and machines (PLATFORMS='gcc-O0 s390x'; -l lists them)"
	@echo "make check-shared  check against the full oracle in SHARED=$(SHARED)"
	@echo "make check-pil     compare JPEG, PNG and resizing with PIL, to the byte (skipped without Pillow)"
	@echo "make check-evaluate compare mIoU and Fréchet distance with numpy and scipy (skipped without numpy)"
	@echo "make check-torch   compare torch_trace.py with flis's traces; PyTorch answers the vectors (skipped without PyTorch)"
	@echo "make check-train   five steps of train layout --recipe authors against PyTorch (minutes; skipped without PyTorch)"
	@echo "make check-truth   compare flis64 with the float64 oracle, full size (minutes, 12 GB)"
	@echo "make flis64        the command and library in double precision: ./flis64, build/64/libflis64.a"
	@echo "make naive         ./flis-naive: every operation runs the loop that defines it; the same bits"
	@echo "make shared        libflis.so, the library with position-independent code (tools/python/flis.py loads it)"
	@echo "make install       install programs, libraries, headers in PREFIX=$(PREFIX), below DESTDIR; make uninstall removes them"
	@echo "make clean         remove what was built (build/model, which took hours, stays)"
	@echo "make format        clang-format (optional)"
	@echo "Variables: CC, CFLAGS, CPPFLAGS, LDFLAGS, LDLIBS; OPENMP=0: no threads; WERROR=1: warnings are errors"

# ---- Rules -----------------------------------------------------------------------------------------------------------
# build/VARIANT/flags holds the commands; it changes only when they do, and everything depends on it.

$(B)/flags: FORCE
	@mkdir -p $(O)bin $(B)/tests $(patsubst %,$(B)/%,$(sort $(dir $(wildcard tools/*/*.c tests/*/*.c))))
	@printf '%s\n' '$(subst ','\'',$(COMPILE))' '$(subst ','\'',$(LINK) $(LIBS) $(PREFIX))' > $@.new
	@cmp -s $@.new $@ && rm -f $@.new || mv -f $@.new $@

# Macros for single files: the folder of installed models, the folder of the tests, the fuzzer's vocabulary.
define_for = $(if $(filter tools/%,$(1)),-DFLIS_DATADIR='"$(PREFIX)/share/flis"')$(if $(filter tests/unit/helpers,$(1)),-DTESTS_DIR='"$(CURDIR)/tests"')$(if $(filter tests/unit/run,$(1)),-I$(B)/tests)$(if $(filter tests/fuzz/fuzz,$(1)),-DREPLAY -DFUZZ_VOCAB='"$(CURDIR)/models/vocab.txt"')

$(B)/%.o: %.c $(B)/flags $(NAMES)
	$(COMPILE) $(call define_for,$*) $(DEPS) -c $< -o $@

$(LIB): $(LIBRARY:%=$(B)/%.o)
	rm -f $@
	$(AR) rcs $@ $^

$(SO): $(LIBRARY:%=$(B)/%.o)
	$(LINK) -shared $(call try,-shared -Wl$(comma)-soname$(comma)$(SONAME)) $^ $(LIBS) -o $@
	$(if $(O),,ln -sf $@ $(SONAME))

# Maps every function that flis.h declares at the start of a line to its name in the double library.
ifdef NAMES
$(NAMES): flis.h Makefile $(B)/flags
	@mkdir -p $(@D)
	@{ echo '/* flis64.h - flis.h for the double library. Made from flis.h by the Makefile. */'; \
	   echo '#ifndef FLIS64_NAMES'; echo '#define FLIS64_NAMES'; \
	   echo '#ifdef FLIS_H'; echo '#error "flis64.h: this file includes flis.h already, and can use only one of the two"'; echo '#endif'; \
	   echo '#ifndef FLIS_DOUBLE'; echo '#define FLIS_DOUBLE'; echo '#endif'; \
	   awk '/^[A-Za-z]/ && !/^typedef/ && match($$0, /flis_[a-z0-9_]+\(/) { \
	       name = substr($$0, RSTART, RLENGTH - 1); print "#define " name " flis64" substr(name, 5) }' flis.h; \
	   echo '#ifndef FLIS64_BUILD'; echo '#include "flis.h"'; echo '#endif'; echo '#endif'; } > $@
endif

# tools/common as an archive, so that each program links only the objects that it uses.
$(TOOLS): $(COMMON:%=$(B)/%.o)
	rm -f $@
	$(AR) rcs $@ $^

# A program links its folder's objects and those that it reuses.
define program
$(2): $$(patsubst %,$$(B)/%.o,$$(call sources,$(1)) $$(foreach p,$$(USES_$(1)),$$(call parts,$$(p)))) $$(TOOLS) $$(PROGRAM_LIB)
	$$(PROGRAM_LINK) $$^ $$(LIBS) -o $$@
endef
USES_evaluate := world
USES_train    := world
USES_paper    := world evaluate
$(eval $(call program,flis,$(FLIS)))
$(foreach p,$(PROGRAMS),$(eval $(call program,$(p),$(O)bin/$(p))))

TESTS  := $(basename $(wildcard tests/unit/*.c))
TESTED := $(call parts,train) $(call parts,world) $(call parts,evaluate) $(call parts,ckpt2safetensors) tools/flis/lis_page
$(B)/run: $(TESTS:%=$(B)/%.o) $(TESTED:%=$(B)/%.o) $(TOOLS) $(LIB)
	$(LINK) $^ $(LIBS) -o $@

# The list of checks, found by name; a comment "slow" on the line above marks those that a quick run skips.
$(B)/tests/checks.h: $(wildcard tests/unit/test_*.c) tests/sh/checks.sh $(B)/flags
	@sh tests/sh/checks.sh $(wildcard tests/unit/test_*.c) > $@
$(B)/tests/unit/run.o: $(B)/tests/checks.h

$(B)/pictures: $(B)/tests/external/pictures.o $(TOOLS) $(LIB)
	$(LINK) $^ $(LIBS) -o $@

$(CHECKS:%=$(B)/%): $(B)/%: $(B)/tests/external/%.o $(B)/tests/unit/helpers.o $(TOOLS) $(LIB)
	$(LINK) $^ $(LIBS) -o $@

# Keep all objects, also intermediate ones.
.SECONDARY:

-include $(wildcard $(B)/*.d $(B)/*/*/*.d)
