# The one Makefile. `make help` lists the targets. Sources are found by folder: a new file needs no edit.

BACKEND ?= cpu#        cpu | cuda
MODE    ?= release#    release | debug | asan (with undefined) | tsan
BUILD   ?= build#      where build folders go
EXTRA   ?=#            more compiler flags, for example EXTRA=-Werror
say = $(if $(V),,@echo '  $(1)' $@;)# V=1 shows the commands themselves
FUZZ_SECONDS ?= 60#    per fuzz target

ifneq ($(filter fuzz,$(MAKECMDGOALS)),)
override MODE := fuzz
CC := clang
endif
ifeq ($(filter cpu cuda,$(BACKEND)),)
$(error BACKEND=$(BACKEND): want cpu or cuda)
endif
ifeq ($(BACKEND),cuda)
$(error BACKEND=cuda is not built yet: there are no kernels for it in this tree. Use BACKEND=cpu)
endif
ifeq ($(origin CC),default)
CC := gcc
endif
.DEFAULT_GOAL := all
MAKEFLAGS += -j$(shell nproc)
B := $(BUILD)/$(BACKEND)-$(MODE)

# --- Debian/Ubuntu packages as package:file, where the file shows that it is there, and for a library its
# link flag. A library counts once a source includes its header: matrix product and convolution (dnnl), JSON
# (jansson), tar bundles (archive), configs (yaml), hashes (xxhash), messages (zmq, msgpack), video (av...).
LIBRARIES := libdnnl-dev:dnnl.h:-ldnnl libjansson-dev:jansson.h:-ljansson \
        libarchive-dev:archive.h:-larchive libyaml-dev:yaml.h:-lyaml libxxhash-dev:xxhash.h:-lxxhash \
        libzmq3-dev:zmq.h:-lzmq libmsgpack-dev:msgpack.h:-lmsgpackc \
        libavformat-dev:libavformat/avformat.h:-lavformat libavcodec-dev:libavcodec/avcodec.h:-lavcodec \
        libavutil-dev:libavutil/opt.h:-lavutil libswscale-dev:libswscale/swscale.h:-lswscale \
        libgomp1:omp.h:-lgomp
included := $(shell grep -rhoE --include=*.[ch] '^\#include <[^>]+>' common launch sampler decoder rewarder \
        learner tests 2>/dev/null | sed 's/.*<//; s/>.*//' | sort -u)
used := $(foreach l,$(LIBRARIES),$(if $(filter $(word 2,$(subst :, ,$l)),$(included)),$l))
LIBS := $(foreach l,$(used),$(lastword $(subst :, ,$l))) -lm -lpthread
DEPS := gcc:gcc libc6-dev:stdio.h binutils:ar $(filter-out libgomp1:%,$(used))
DEPS_DEV := clang:clang libclang-rt-dev:libclang_rt.fuzzer-x86_64.a clang-format:clang-format# fuzz, lint
DEPS_LOOK := chromium:chromium# the test that looks at reports; only `make deps` brings it

dirs := $(subst :, ,$(PATH)) /usr/include /usr/local/include $(wildcard /usr/include/*-linux-gnu \
        /usr/lib/llvm-*/lib/clang/*/lib/linux)
missing = $(strip $(foreach d,$(1),$(if $(wildcard $(addsuffix /$(word 2,$(subst :, ,$d)),$(dirs))),,\
          $(firstword $(subst :, ,$d)))))
need     := $(call missing,$(DEPS))
need_dev := $(if $(filter deps fuzz lint,$(MAKECMDGOALS)),$(call missing,$(DEPS_DEV))) \
            $(if $(filter deps,$(MAKECMDGOALS)),$(call missing,$(DEPS_LOOK)))
ready    := $(if $(strip $(need)$(need_dev)),deps)# what every object waits for

# --- Flags
WARN   := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wformat=2 \
          -Werror=implicit-function-declaration -Wno-unused-parameter -Wno-missing-field-initializers \
          -Wno-format-nonliteral
SANE   := -fno-math-errno -fno-trapping-math -fno-omit-frame-pointer# none of these changes a number
CFLAGS_release := -O3
CFLAGS_debug   := -Og -DVADER_DEBUG
CFLAGS_asan    := -O1 -DVADER_DEBUG -fsanitize=address,undefined -fno-sanitize-recover=all
CFLAGS_tsan    := -O3 -DVADER_DEBUG -fsanitize=thread# every load is looked at, and whole vectors are fewer of them
CFLAGS_fuzz    := -O1 -DVADER_DEBUG -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
ifeq ($(CFLAGS_$(MODE)),)
$(error MODE=$(MODE): want release, debug, asan or tsan)
endif
CFLAGS := -std=gnu17 -D_GNU_SOURCE= -I. -g $(CFLAGS_$(MODE)) $(SANE) $(WARN) -MMD -MP $(EXTRA)
LDFLAGS := $(CFLAGS_$(MODE)) -rdynamic -Wl,--as-needed
$(B)/common/tensor/ref/%.o: CFLAGS += -ffp-contract=off
# The binary runs on every x86-64: only simd/ is compiled per instruction set, and chosen when it starts.
ISAS := base $(if $(filter x86_64,$(shell uname -m)),avx2 avx512)
ISA_base   := -DSIMD_ISA=base
ISA_avx2   := -DSIMD_ISA=avx2 -mavx2 -mfma -mf16c
ISA_avx512 := -DSIMD_ISA=avx512 -mavx512f -mavx512vl -mavx512bw -mavx512dq -mfma -mf16c -mprefer-vector-width=512

# --- Sources. Fuzz targets are for readers of outside bytes, which need no tensor code.
find = $(sort $(shell find $(1) -name '$(2)' 2>/dev/null))
STAGES := sampler decoder rewarder learner# all but main.c is in the library too, for vader-tool's inline runs
parts = $(filter-out $(if $(2),%/main.c),$(wildcard $(1)/*.c))
srcs := $(filter-out common/tensor/cuda/%,$(call find,common,*.c)) $(foreach s,$(STAGES),$(call parts,$s,lib))
ifeq ($(MODE),fuzz)
srcs := $(filter-out common/tensor/% common/model/% common/stages/% $(STAGES:=/%),$(srcs))
endif
simd := $(filter common/tensor/cpu/simd/%,$(srcs))
objs := $(patsubst %.c,$(B)/%.o,$(filter-out $(simd),$(srcs))) \
        $(foreach i,$(ISAS),$(simd:%.c=$(B)/%.$i.o))
LIB  := $(B)/libvader.a

# A program is its folder's .c files (a stage: main.c) and the library; a folder without any is not built.
PROGRAMS := vader:launch vader-tool:launch/tool vader-sampler:sampler vader-decoder:decoder \
            vader-rewarder:rewarder vader-learner:learner
own = $(patsubst %.c,$(B)/%.o,$(if $(filter $(1),$(STAGES)),$(wildcard $(1)/main.c),$(wildcard $(1)/*.c)))
define program # name, folder
ifneq ($$(wildcard $(2)/*.c),)
programs += $(B)/$(1)
objs_all += $$(call own,$(2))
$(B)/$(1): $$(call own,$(2)) $(LIB)
endif
endef
objs_all := $(objs)
$(foreach p,$(PROGRAMS),$(eval $(call program,$(firstword $(subst :, ,$p)),$(lastword $(subst :, ,$p)))))

# Tests: each test_*.c is a program; other .c files under tests/ are helpers that all of them may use.
test_bins  := $(patsubst %.c,$(B)/%,$(call find,tests,test_*.c))
bench_bins := $(patsubst %.c,$(B)/%,$(wildcard tests/bench/bench_*.c))
fuzz_bins  := $(patsubst %.c,$(B)/%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz_bins  := $(if $T,$(foreach f,$(fuzz_bins),$(if $(findstring $T,$f),$f)),$(fuzz_bins))
helpers    := $(filter-out test_% bench_% fuzz_%,$(notdir $(call find,tests,*.c)))
helpers    := $(patsubst %.c,$(B)/%.o,$(foreach h,$(helpers),$(call find,tests,$h)))
objs_all   += $(helpers) $(test_bins:=.o) $(bench_bins:=.o) $(fuzz_bins:=.o)

.PHONY: all test soak train demo demo-long bench bench-torch bench-demo-torch bench-window fuzz lint deps clean help FORCE
.SECONDARY:
.DELETE_ON_ERROR:

all: $(programs) $(LIB)## build; ./vader then runs this build
ifneq ($(programs),)
	@ln -sfn $(B)/vader vader
endif

test: all $(test_bins)## all tests; T=pattern picks some
	@BUILD_DIR=$(B) MODE=$(MODE) tests/run $(T)

soak: all## kill -9 of every process at every step of every sample, one run each (half an hour)
	@BUILD_DIR=$(B) MODE=$(MODE) SOAK=1 TEST_TIMEOUT=14400 tests/run pipeline/test_kill

train: all## the main job on a toy model: four processes train an adapter; a second call goes on
	@if [ -e runs/tiny/config.yaml ]; then $(B)/vader resume runs/tiny; else $(B)/vader train launch/conf/tiny.yaml; fi
	@tail -n 1 runs/tiny/metrics.jsonl; ls -d runs/tiny/*

DEMO      ?= launch/conf/demo.yaml
DEMO_LONG ?= launch/conf/demo-long.yaml
demo_steps = run=runs/$(basename $(notdir $(1))); set -e; \
  if [ -e $$run/config.yaml ]; then $(B)/vader resume $$run; else $(B)/vader train $(1) run=$$run; fi; \
  $(B)/vader eval $$run; $(B)/vader report $$run
demo: all## a small trained model learns to move the camera; ends with a page to open (five minutes, 2 cores)
	@$(call demo_steps,$(DEMO))

demo-long: all## the same over three segments, one after the other, for V-JEPA
	@$(call demo_steps,$(DEMO_LONG))

bench-torch: all## the tiny denoiser against PyTorch in the same run (downloads PyTorch into build/)
	VADER=$(B)/vader tests/bench/torch/run.sh

bench-demo-torch: all## DEMO against the same run in PyTorch: numbers, time, memory (downloads PyTorch into build/)
	VADER=$(B)/vader tests/oracle/compare_torch.sh $(DEMO)

bench-window: all## the demo with its window at four places: reward at equal updates (three quarters of an hour)
	tests/bench/window/window.py $(BUILD)/window --vader $(B)/vader

lint: all## what the compiler does not check: folders, names, format
	@BUILD_DIR=$(B) MODE=$(MODE) tests/run tests/lint/

bench: all $(bench_bins)## run the benchmarks, all of them, and fail when one is below; BENCH=text picks rows
	@status=0; for b in $(bench_bins); do echo "== $$b"; $$b '$(BENCH)' || status=1; done; exit $$status

fuzz: $(fuzz_bins)## each fuzz target for FUZZ_SECONDS, from tests/fuzz/seeds/<name>; T=name picks some
	@set -e; for f in $(fuzz_bins); do name=$${f##*/fuzz_}; echo "== fuzz_$$name"; mkdir -p $(B)/corpus/$$name; \
	  $$f -max_total_time=$(FUZZ_SECONDS) -timeout=30 -rss_limit_mb=2048 -print_final_stats=1 \
	  -artifact_prefix=$(B)/ $(B)/corpus/$$name $$(ls -d tests/fuzz/seeds/$$name 2>/dev/null || true); done

apt := $(if $(filter 0,$(shell id -u)),,sudo )env DEBIAN_FRONTEND=noninteractive apt-get
deps:## install the packages that are missing (apt, with sudo when not root)
ifeq ($(ready),)
	@echo 'deps: nothing is missing'
else
	@echo 'deps: installing $(need) $(need_dev)'
	@command -v apt-get >/dev/null || { echo 'deps: no apt-get here, install their likes by hand'; exit 1; }
	$(apt) update -q
	$(if $(need),$(apt) install -qy --no-install-recommends $(need))
	@for p in $(need_dev); do $(apt) install -qy --no-install-recommends $$p || \
	  echo "deps: $$p: not found, what it is for will be skipped"; done
endif

clean:## remove all build folders
	rm -rf $(BUILD) vader

help:## this list
	@sed -n 's/^\([a-z-]*\):.*##\(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18
	@echo 'Variables: BACKEND=cpu MODE=release|debug|asan|tsan BUILD=folder EXTRA=flags V=1 T=test BENCH=row FUZZ_SECONDS=n'

$(objs_all): Makefile | $(ready)
$(B)/launch/report_page.o: launch/report.css launch/report.js# .incbin
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,cc  )$(CC) $(CFLAGS) -c $< -o $@

define simd_rule # isa
$(B)/common/tensor/cpu/simd/%.$(1).o: common/tensor/cpu/simd/%.c
	@mkdir -p $$(@D)
	$$(call say,cc  )$$(CC) $$(CFLAGS) $$(ISA_$(1)) -c $$< -o $$@
endef
$(foreach i,$(ISAS),$(eval $(call simd_rule,$i)))

# Rewritten only when the list of objects changes, so that a deleted source leaves the library too.
$(LIB).list: FORCE
	@mkdir -p $(@D); echo '$(objs)' | cmp -s - $@ || echo '$(objs)' > $@
$(LIB): $(objs) $(LIB).list
	@rm -f $@.$$$$; ar rcs $@.$$$$ $(objs) && mv $@.$$$$ $@

# A program is replaced at once: one that runs goes on with the file it began with.
$(programs): ; $(call say,link)$(CC) $(LDFLAGS) $(filter %.o,$^) $(LIB) $(LIBS) -o $@.$$$$ && mv $@.$$$$ $@
$(test_bins) $(bench_bins): $(B)/%: $(B)/%.o $(helpers) $(LIB)
	$(call say,link)$(CC) $(LDFLAGS) $(filter %.o,$^) $(LIB) $(LIBS) -o $@
$(fuzz_bins): $(B)/%: $(B)/%.o $(LIB)
	$(call say,link)$(CC) $(LDFLAGS) -fsanitize=fuzzer $< $(LIB) $(LIBS) -o $@

-include $(objs_all:.o=.d)
