# make            build everything this machine can build, into build/<variant>/; tools also in build/bin/
# make demo       install what is missing, build, and run the main job end to end on the fixture
# make check      the same set-up, then unit, kernel, format, command-line and layering tests
# make check-long the heavy ones: true K2 widths, the full-size sparse checkpoint, 50 kills
# make check-compiler CC=clang  those of make check that another compiler can change
# make check-threads  pools, communicator, engine and expert-parallel runs under ThreadSanitizer
# make check-device   on a machine with a GPU: tests, speeds and profiles of its kernels (tests/device.sh)
# make bench      one table of speeds beside what this machine can do (docs/measurements/performance.md); BENCH_JSON=FILE
# make count      what GPU kernels do to memory, counted without a GPU (docs/measurements/gpu.md)
# make fuzz       run each fuzz target, or those named in FUZZ, for FUZZ_SECONDS (60)
# make setup      install missing Debian packages (or name the command, without root)
# make install    DESTDIR= PREFIX=/usr/local      make uninstall
# make clean      make help
#
# Variables:  B=dir  V=1  WERROR=1  SAN=address,undefined  PROFILE=1  CC=clang
#             CUDA=0|1|auto|shim  NVCC=      shim: GPU kernels run in tests/shim/cuda; into build/shim/

# SPDX-License-Identifier: Apache-2.0
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VERSION := $(shell cat VERSION)
PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
LIBDIR  ?= $(PREFIX)/lib
INCDIR  ?= $(PREFIX)/include
MANDIR  ?= $(PREFIX)/share/man
COMPDIR ?= $(PREFIX)/share
INSTALL ?= install

ifeq ($(origin CC),default)
CC        := cc
endif
NVCC      ?= $(firstword $(wildcard /usr/local/cuda/bin/nvcc) nvcc)
CUDA      ?= auto
SAN       ?=
WERROR    ?= 0
comma     := ,
space     := $(subst ,, )
kind      := $(filter shim,$(CUDA)) $(subst $(comma),-,$(SAN))
variant   := $(subst $(space),-,$(or $(strip $(kind)),release))$(if $(findstring clang,$(CC)),-clang)
B         ?= build/$(variant)
Q          = $(if $(filter 1,$(V)),,@)

# ---- flags: the user's CPPFLAGS, CFLAGS, LDFLAGS and LDLIBS come last and stay theirs, on make's command line too ----
WARN     := -Wall -Wextra -Wshadow -Wvla -Wundef -Wwrite-strings -Wpointer-arith \
            -Wstrict-prototypes -Wmissing-prototypes $(if $(filter 1,$(WERROR)),-Werror)
CFLAGS   ?= -O$(level) $(if $(SAN),-g1,-g)
level     = 2
ours     := -I. -Iinclude -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DMOE_VERSION='"$(VERSION)"'
sanflags := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
repro    := -ffile-prefix-map='$(CURDIR)=.'
std      := -std=c17 -ffp-contract=off -fno-math-errno
# One set of objects for libmoe.a and libmoe.so.  What MOE_API marks is visible outside, and nothing else.
pic      := -fPIC -fvisibility=hidden
compile   = $(CC) $(std) $(WARN) $(ours) $(repro) $(pic) $(sanflags) $(harden) $(isa) $(CPPFLAGS) $(CFLAGS) -MMD -MP
linkflags = $(sanflags) $(if $(SAN),,$(HARDEN_LINK)) $(LDFLAGS)
# Hardening, as far as compiler and linker have it (probed below): a canary behind arrays on the stack, stacks
# that grow page by page, checked copies, tables that are read-only once a tool runs.  Sanitizers check more.
# Checked copies need an optimizer, and the user may choose their level.
chosen    = $(findstring _FORTIFY_SOURCE,$(CPPFLAGS) $(CFLAGS))
optimized = $(filter-out -O0,$(lastword $(filter -O%,$(CPPFLAGS) $(CFLAGS))))
fortify   = $(if $(chosen),,$(if $(optimized),$(FORTIFY:%=-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=%)))
harden    = $(if $(SAN),,$(HARDEN) $(fortify))

# ---- sources: a new file needs no edit here ------------------------------------
isa_dirs := $(if $(filter x86_64 amd64,$(shell uname -m)),avx2 avx512 avx512dot)
folders  := base formats model convert quantize runtime
tools    := $(sort $(shell find $(folders) -name 'moe-*.c'))
allsrc   := $(sort $(shell find $(folders) -name '*.c') \
              $(wildcard kernels/*.c kernels/ref/*.c kernels/cuda/*.c $(isa_dirs:%=kernels/%/*.c)))
# What speaks for a tool (its options, its man page, what it prints) is no part of the library.  Tools and tests
# link it from libcli.a, which is not installed; check-layers lets nothing in the library include its headers.
clisrc   := $(filter-out $(tools),$(filter base/cli/% %-options.c %-man.c runtime/engine/run-% \
              convert/convert-report.c convert/inspect-gguf.c convert/inspect-print.c quantize/quantize-tell.c,$(allsrc)))
# The HTTP server is for moe-serve alone, and is built where libmicrohttpd is.
httpsrc  := $(filter-out $(tools) $(clisrc),$(filter runtime/server/%,$(allsrc)))
libsrc   := $(filter-out $(tools) $(clisrc) $(httpsrc),$(allsrc))
cusrc    := $(sort $(wildcard kernels/cuda/*.cu))
# Tests and helpers have names that differ, so that their programs lie in one folder, $(B)/tests.
tests    := $(basename $(notdir $(sort $(wildcard tests/unit/test-*.c tests/kernels/check*.c))))
# The count of accesses takes the place of a sanitizer.
tests    := $(filter-out $(if $(SAN),check-cuda-count),$(tests))
helpers  := $(basename $(notdir $(sort $(wildcard tests/gen/gen*.c)))) bench bench-cuda
fuzzers  := $(basename $(notdir $(sort $(wildcard tests/fuzz/fuzz-*.c))))
scripts  := $(basename $(notdir $(sort $(wildcard tests/cli/t-*.sh))))
longs    := $(basename $(notdir $(sort $(wildcard tests/long/long-*.sh))))
public   := $(sort $(wildcard include/moe/*.h))
# for .cu files
cuonly   := $(addprefix kernels/cuda/,launch.h ptx.h attend-merge.h codes.h codes-fast.h decode.h gated.h rms.h \
              scan.h)
headers  := $(public) $(sort $(shell find $(folders) -name '*.h') $(wildcard kernels/*.h) \
              $(filter-out $(cuonly),$(wildcard kernels/cuda/*.h)))
layered  := $(allsrc) $(headers) $(cusrc)
# Whose lines end at 110 columns.
folded   := $(sort $(shell find $(folders) include kernels tests -name '*.[ch]' -o -name '*.def' -o -name '*.cu'))

# ---- probes: run once, kept in $(B)/config.mk, log in $(B)/config.log ----------
# make remakes an included makefile and starts again, so no configure script is needed.
keep = printf '%s\n' '$(subst ','\'',$1)' >$@.new; if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
ifneq ($(filter-out clean help setup demo check check-long check-compiler check-threads check-device fuzz,$(or $(MAKECMDGOALS),all)),)
include $(B)/config.mk
endif

# What the probes depend on: `make CUDA=1` after `make` must look again.
$(B)/config.in: FORCE
	$(Q)mkdir -p $(@D); $(call keep,$(CC) $(CPPFLAGS) $(LDFLAGS) CUDA=$(CUDA) SAN=$(SAN) $(NVCC))
$(B)/config.mk: Makefile $(B)/config.in
	$(Q)exec >$(B)/config.log 2>&1; set -x; \
	try() { printf '%b' "$$1" >$(B)/probe.c; shift; $(CC) $(CPPFLAGS) -o $(B)/probe $(B)/probe.c $(LDFLAGS) "$$@"; }; \
	cuda=0; if [ "$(CUDA)" != 0 ] && [ "$(CUDA)" != shim ] && [ -z "$(SAN)" ]; then \
	  printf '__global__ void nothing(void) {}\n' >$(B)/probe.cu; \
	  if $(nvcc) -o $(B)/probe $(B)/probe.cu; then cuda=$$($(NVCC) --version | \
	    sed -n 's/.*release \([0-9]*\)\.\([0-9]*\).*/\1 \2/p' | awk '{ print 1000 * $$1 + 10 * $$2 }'); fi; fi; \
	cuda=$${cuda:-12000} version=$$cuda; [ $$cuda = 0 ] || cuda=1; \
	nccl=0; if [ $$cuda = 1 ] && try '#include <nccl.h>\nint main(void){return ncclSuccess;}\n' -I$(dir $(NVCC))../include -lnccl; then nccl=1; fi; \
	ucx=0; if try '#include <ucp/api/ucp.h>\nint main(void){ucp_config_t *c;return ucp_config_read(0,0,&c)!=UCS_OK;}\n' -lucp -lucs; then ucx=1; fi; \
	mhd=0; if try '#include <microhttpd.h>\nint main(void){return MHD_VERSION<0x00097500||!MHD_is_feature_supported(MHD_FEATURE_EPOLL);}\n' -lmicrohttpd; then mhd=1; fi; \
	base=0; if try '#include <cjson/cJSON.h>\n#include <xxhash.h>\n#include <zlib.h>\n#define PCRE2_CODE_UNIT_WIDTH 8\n#include <pcre2.h>\nint main(void){return !cJSON_Version()||!XXH3_64bits("",0)||!zlibVersion()||pcre2_config_8(0,0)<0;}\n' -lcjson -lxxhash -lz -lpcre2-8; then base=1; fi; \
	init=; if try 'int main(void){return 0;}\n' -Werror -ftrivial-auto-var-init=pattern; then init=-ftrivial-auto-var-init=pattern; fi; \
	harden= hardlink= fortify=; main='int main(void){return 0;}\n'; copy='#include <string.h>\n'"$$main"; \
	for f in -fstack-protector-strong -fstack-clash-protection; do \
	  if try "$$main" -Werror $$f; then harden="$$harden $$f"; fi; done; \
	for f in -Wl,-z,relro -Wl,-z,now; do if try "$$main" -Werror $$f; then hardlink="$$hardlink $$f"; fi; done; \
	for n in 2 3; do \
	  if try "$$copy" -Werror -O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=$$n; then fortify=$$n; fi; done; \
	printf 'HAVE_BASE := %s\nHAVE_CUDA := %s\nHAVE_NCCL := %s\nHAVE_UCX := %s\nHAVE_MHD := %s\n' $$base $$cuda $$nccl $$ucx $$mhd >$@; \
	printf 'CUDA_VERSION := %s\n' $$version >>$@; \
	printf 'HARDEN :=%s\nHARDEN_LINK :=%s\nFORTIFY := %s\nAUTO_INIT := %s\n' "$$harden" "$$hardlink" "$$fortify" "$$init" >>$@; \
	rm -f $(B)/probe $(B)/probe.c $(B)/probe.cu
	$(Q)sed 's/ := */=/; s/ :=/=/; s/^/  /' $@
	$(Q)if grep -q 'HAVE_BASE := 0' $@; then \
	  echo "cJSON, xxHash, zlib or PCRE2 is missing: run 'make setup' (log: $(B)/config.log)" >&2; rm -f $@; exit 2; fi
	$(Q)if grep -q 'HAVE_MHD := 0' $@; then echo "  libmicrohttpd is missing: moe-serve is not built (make setup)"; fi
	$(Q)if [ "$(CUDA)" = 1 ] && grep -q 'HAVE_CUDA := 0' $@; then \
	  echo "CUDA=1, but nvcc does not work: see $(B)/config.log" >&2; rm -f $@; exit 2; fi

ours     += -DMOE_HAVE_CUDA=$(or $(HAVE_CUDA),0) -DMOE_HAVE_NCCL=$(or $(HAVE_NCCL),0) -DMOE_HAVE_UCX=$(or $(HAVE_UCX),0)
libs      = -lcjson -lxxhash -lz -lpcre2-8 -lm -lpthread $(LDLIBS)

libobj   := $(libsrc:%.c=$(B)/%.o)
cliobj   := $(clisrc:%.c=$(B)/%.o)
httpobj  := $(httpsrc:%.c=$(B)/%.o)
bins     := $(foreach t,$(if $(filter 1,$(HAVE_MHD)),$(tools),$(filter-out %/moe-serve.c,$(tools))),$(B)/bin/$(basename $(notdir $t)))
testbins := $(tests:%=$(B)/tests/%)
helpbins := $(helpers:%=$(B)/tests/%)
fuzzbins := $(fuzzers:%=$(B)/tests/%)
checkedtests := $(patsubst %,$(B)/tests/%-checked,test-core test-core-cases test-core-threads test-ep-lies)
checked  := $(B)/tests/moe-run-checked $(checkedtests)
shimmed  := $(B)/tests/moe-run-shim
vpath moe-%.c $(sort $(dir $(tools)))
vpath %.c tests/unit tests/kernels tests/ops tests/fuzz tests/gen tests/bench

# ---- rules ------------------------------------------------------------------
.PHONY: all build check check-headers check-layers bench count install uninstall clean help setup demo check-long fuzz test-programs FORCE
all: $(bins) $(B)/libmoe.a $(B)/libmoe.so $(B)/moe.pc $(if $(filter build/release,$(B)),links) $(if $(filter shim,$(CUDA)),$(B)/shim/libcuda.so.1)
test-programs: all $(testbins) $(helpbins) $(fuzzbins) $(B)/tests/fault-preload.so $(checked) $(shimmed) $(B)/shim/libcuda.so.1 \
  $(B)/shim/libcublasLt.so.13 $(B)/shim/e2m1/libcuda.so.1

# The release tools also stand in build/bin/, whatever other variants exist.
.PHONY: links
links: $(bins)
	$(Q)mkdir -p build/bin && for b in $(notdir $(bins)); do ln -sfn ../release/bin/$$b build/bin/$$b; done

# Anything compiled depends on the exact command line: change a flag, rebuild.
$(B)/flags: FORCE
	$(Q)mkdir -p $(@D); $(call keep,$(compile) | $(nvcc) | $(shimcc) | $(linkflags) $(libs))

# No canaries and probes of pages in the arithmetic itself: it takes no input's word for a size, and they cost a sixth.
$(B)/kernels/%.o: harden = $(sanquick)
# Sanitizers' checks make three of gcc's passes slow there: a third of the whole build.
sanquick := $(if $(SAN),$(if $(findstring clang,$(CC)),,-fno-tree-pre -fno-gcse -fno-schedule-insns2))
# Three files grow so much by those checks that gcc takes 150 seconds for them at -O2; tests are no slower with these at -O1.
$(isa_dirs:%=$(B)/kernels/%/matmul.o): level = $(if $(SAN),1,2)
$(B)/kernels/avx2/%.o: isa := -mavx2 -mfma -mf16c
avx512   := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma
$(B)/kernels/avx512/%.o: isa := $(avx512)
$(B)/kernels/avx512dot/bf16.o: isa := $(avx512) -mavx512bf16
$(B)/kernels/avx512dot/matmul.o: isa := $(avx512) -mavx512vnni -mavx512vbmi
$(B)/kernels/avx512dot/vnni.o $(B)/kernels/avx512dot/nvfp4.o: isa := $(avx512) -mavx512vnni

define compile_c
@echo "  CC    $<"
$(Q)mkdir -p $(@D) && $(compile) -c -o $@ $<
endef
$(B)/%.o: %.c $(B)/flags
	$(compile_c)
# Where a source has moved, the lists of an older build name its old place: what is made of it is made again.
%.c: ;
$(B)/tests/%.o: %.c $(B)/flags
	$(compile_c)

# ---- kernels for GPUs ----
# One fatbin a .cu file: machine code for Hopper and for the family of Blackwell, and PTX for what comes later.
# nvcc is only reproducible with a fixed seed and fixed temporary names, and -lineinfo writes the absolute
# directory into the object: so PROFILE=1 builds are not comparable.  Arithmetic is IEEE, and contracted nowhere.
cutargets := -gencode arch=compute_90,code=sm_90 -gencode arch=compute_100f,code=sm_100f \
             -gencode arch=compute_90,code=compute_90
nvcc = $(NVCC) -std=c++17 -O3 -fmad=false -ftz=false -prec-div=true -prec-sqrt=true $(cutargets) -fatbin \
       $(if $(filter 1,$(WERROR)),-Werror all-warnings) $(if $(filter 1,$(PROFILE)),-lineinfo) -I.
# What ptxas says about registers and spills is kept beside it (t-cuda-build looks at it); the rest is shown.
$(B)/%.fatbin $(B)/%.ptxas: %.cu $(B)/flags
	@echo "  NVCC  $<"
	$(Q)f=$(B)/$*.fatbin; mkdir -p $$f.keep; if $(nvcc) -Xptxas -v -frandom-seed=$< --keep --keep-dir $$f.keep \
	  -MMD -MP -MF $$f.d -MT $$f -o $$f $< >$(B)/$*.ptxas 2>&1; then rm -rf $$f.keep; \
	  grep -v '^ptxas info\|^ *[0-9]* bytes\|^ptxas warning .*-[gG]' $(B)/$*.ptxas >&2 || true; \
	  else cat $(B)/$*.ptxas >&2; exit 1; fi
# The fatbins as images.c embeds them, with their sizes.
fatbins := $(if $(filter 1,$(HAVE_CUDA)),$(cusrc:%.cu=$(B)/%.fatbin))
$(B)/kernels/cuda/images.inc: $(fatbins) $(fatbins:.fatbin=.ptxas) $(B)/objects
	$(Q)mkdir -p $(@D) && for f in $(sort $(notdir $(fatbins:.fatbin=))); do \
	  echo "IMAGE($$(echo $$f | tr - _), \"$$f\", $$(wc -c <$(B)/kernels/cuda/$$f.fatbin))"; done >$@
images = -DMOE_CUDA_FATBINS='"$(B)/kernels/cuda"' -DMOE_CUDA_MARKER=$(if $(filter shim,$(CUDA)),1,0) -I$(B) \
         -DMOE_CUDA_TOOLKIT=$(or $(CUDA_VERSION),0)
$(B)/kernels/cuda/images.o: isa = $(images)
$(B)/kernels/cuda/images.o: $(B)/kernels/cuda/images.inc

# The same sources as C++, their threads as fibers, behind a stand-in for the driver: for machines without a GPU.
shimsrc := $(sort $(wildcard tests/shim/cuda/*.c))
shimobj := $(shimsrc:tests/shim/cuda/%.c=$(B)/shim/%.o) $(cusrc:kernels/cuda/%.cu=$(B)/shim/%.cu.o)
cuhead  := $(sort $(filter-out $(cuonly),$(wildcard kernels/cuda/*.h)))
shimisa := $(if $(isa_dirs),-mavx2 -mfma -mf16c)
shimcc   = -DMOE_CUDA_SHIM $(ours) $(repro) $(pic) $(sanflags) $(sanquick) -ffp-contract=off $(shimisa) \
           $(before) $(AUTO_INIT) $(CPPFLAGS) $(CFLAGS) -MMD -MP
define compile_cu
@echo "  SHIM  $<"
$(Q)mkdir -p $(@D) && $(CC) -x c++ -std=c++17 -Wall -Wextra -Wundef -Wno-unknown-pragmas -Wno-pass-failed \
  $(if $(filter 1,$(WERROR)),-Werror) -fno-exceptions -fno-threadsafe-statics $(shimcc) -c -o $@ $<
endef
$(B)/shim/%.cu.o: kernels/cuda/%.cu $(B)/flags
	$(compile_cu)
$(B)/shim/planted/%.cu.o: tests/shim/cuda/%.cu $(B)/flags
	$(compile_cu)
# LeakSanitizer takes fright at variables of threads in a library that is opened late, but not in this model.
$(B)/shim/%.o: tests/shim/cuda/%.c $(B)/flags
	@echo "  SHIM  $<"
	$(Q)mkdir -p $(@D) && $(CC) $(std) $(WARN) $(shimcc) -ftls-model=initial-exec -c -o $@ $<
$(B)/shim/list.o: private before = $(cuhead:%=-include %)
$(B)/shim/list.o: $(B)/objects
$(B)/shim/libshim.a: $(shimobj) $(B)/objects
	@echo "  AR    $@"
	$(Q)rm -f $@ && $(AR) rcsD $@ $(filter %.o,$^)
$(B)/shim/libcuda.so.1: $(B)/shim/libshim.a
	@echo "  LINK  $@"
	$(Q)$(CC) $(linkflags) -shared -Wl,-soname,libcuda.so.1 -o $@ -Wl,--whole-archive $< -Wl,--no-whole-archive -lpthread -lm
# Beside it, so that bench-cuda never opens cuBLASLt itself over a stand-in.
$(B)/shim/libcublasLt.so.13: tests/shim/lt.c $(B)/flags
	@echo "  LINK  $@"
	$(Q)mkdir -p $(@D) && $(CC) $(std) $(WARN) -O1 -g -fPIC -shared -Wl,-soname,libcublasLt.so.13 -o $@ $<
# The same with kernels that take E2M1 codes apart as on sm_100f, by an instruction.
e2m1 := $(patsubst kernels/cuda/%,$(B)/shim/e2m1/%.o,$(shell grep -l '"kernels/cuda/codes' $(cusrc)))
$(e2m1): private before = -DPTX_HAS_E2M1=1
$(B)/shim/e2m1/%.cu.o: kernels/cuda/%.cu $(B)/flags
	$(compile_cu)
$(B)/shim/e2m1/libcuda.so.1: $(e2m1) $(filter-out $(e2m1:$(B)/shim/e2m1/%=$(B)/shim/%),$(shimobj)) $(B)/objects
	@echo "  LINK  $@"
	$(Q)$(CC) $(linkflags) -shared -Wl,-soname,libcuda.so.1 -o $@ $(filter %.o,$^) -lpthread -lm
# The same once more with calls before each access to memory, which tests/shim/count counts.
counted := $(cusrc:kernels/cuda/%.cu=$(B)/shim/count/%.cu.o) $(B)/shim/count/counted.cu.o
$(counted): private before = -fsanitize=thread -DMOE_SHIM_COUNT
$(B)/shim/count/%.cu.o: kernels/cuda/%.cu $(B)/flags
	$(compile_cu)
$(B)/shim/count/%.cu.o: tests/shim/count/%.cu $(B)/flags
	$(compile_cu)
$(B)/shim/count/%.o: tests/shim/count/%.c $(B)/flags
	@echo "  SHIM  $<"
	$(Q)mkdir -p $(@D) && $(CC) $(std) $(WARN) $(shimcc) -c -o $@ $<
countobj := $(counted) $(B)/shim/count/count.o $(filter-out $(B)/shim/driver%.o %.cu.o,$(shimobj))
$(B)/tests/check-cuda-count: $(countobj)
$(B)/tests/check-cuda-count: wrap := $(foreach f,barrier shuffle ballot sync_warp movmatrix mma_f16 mma_bf16 ldmatrix copy move,-Wl$(comma)--wrap=shim_$f)
# Checks of kernels find the stand-in beside them.  A build without images tests with the marker in their place.
cuchecks := $(filter $(B)/tests/check-cuda-% $(addprefix $(B)/tests/,test-core-cuda test-cuda-device),$(testbins))
$(cuchecks): | $(B)/shim/libcuda.so.1
$(B)/tests/images.o: kernels/cuda/images.c $(B)/flags
	$(Q)mkdir -p $(@D) && $(compile) -DMOE_CUDA_MARKER=1 -c -o $@ $<
ifneq ($(HAVE_CUDA),1)
$(cuchecks): $(B)/tests/images.o
endif
$(B)/tests/check-shim: $(B)/shim/planted/planted.cu.o
$(B)/tests/check-mma: $(B)/shim/planted/fragments.cu.o
$(B)/tests/check-mma $(B)/tests/check-shim $(B)/tests/check-cuda-probe: $(B)/shim/libshim.a

# The list of objects is a prerequisite too: a source file that goes away leaves the archive.  It is without
# the build folder, which may be named in another way the next time.
$(B)/objects: FORCE
	$(Q)mkdir -p $(@D); $(call keep,$(patsubst $(B)/%,%,$(libobj) | $(cliobj) | $(httpobj) | $(shimobj) | $(cuhead)))
$(B)/libmoe.a: $(libobj) $(B)/objects
$(B)/libcli.a: $(cliobj) $(B)/objects
$(B)/libmoe.a $(B)/libcli.a:
	@echo "  AR    $@"
	$(Q)rm -f $@ && $(AR) rcsD $@ $(filter %.o,$^)
# What a tool or a test is linked with, in this order: libcli.a calls libmoe.a.
archives := $(B)/libcli.a $(B)/libmoe.a

# Before version 1 a new minor version may change the interface, so the soname has both numbers.
soname   := libmoe.so.$(if $(filter 0.%,$(VERSION)),$(basename $(VERSION)),$(firstword $(subst ., ,$(VERSION))))
# Sanitizers leave calls of their own undefined in a shared library.
$(B)/libmoe.so: $(libobj) $(B)/objects libmoe.map
	@echo "  LINK  $@"
	$(Q)$(CC) $(linkflags) -shared -Wl,-soname,$(soname) -Wl,--version-script=libmoe.map \
	  $(if $(SAN),,-Wl,-z,defs) -o $@ $(libobj) $(libs)

# In a build with CUDA=shim the tools find the stand-in for the driver beside them.
beside   := $(if $(filter shim,$(CUDA)),-Wl$(comma)-rpath$(comma)'$$ORIGIN/../shim')
$(B)/libhttp.a: $(httpobj) $(B)/objects
	@echo "  AR    $@"
	$(Q)rm -f $@ && $(AR) rcsD $@ $(filter %.o,$^)
$(B)/bin/moe-serve: $(B)/obj/moe-serve.o $(B)/libhttp.a $(archives)
	@echo "  LINK  $@"
	$(Q)mkdir -p $(@D) && $(CC) $(linkflags) $(beside) -o $@ $^ -lmicrohttpd $(libs)
$(B)/bin/moe-%: $(B)/obj/moe-%.o $(archives)
	@echo "  LINK  $@"
	$(Q)mkdir -p $(@D) && $(CC) $(linkflags) $(beside) -o $@ $^ $(libs)
$(B)/obj/moe-%.o: moe-%.c $(B)/flags
	$(compile_c)
.SECONDARY: $(foreach t,$(tools),$(B)/obj/$(basename $(notdir $t)).o) $(testbins:%=%.o) $(helpbins:%=%.o) $(fuzzbins:%=%.o) $(B)/tests/replay.o

$(testbins) $(helpbins): %: %.o $(archives)
	@echo "  LINK  $@"
	$(Q)$(CC) $(linkflags) $(wrap) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(libs)

# What is linked with this option gets ops/checked (tests/ops/checked.h) around the processor when it opens it.
$(B)/tests/test-model $(B)/tests/test-plain $(B)/tests/test-backward $(B)/tests/test-attention $(B)/tests/test-latent: wrap := -Wl,--wrap=moe_cpu_open
$(B)/tests/moe-run-checked: $(B)/obj/moe-run.o
$(checkedtests): %-checked: %.o
$(checked): $(B)/tests/wrap.o $(archives)
	@echo "  LINK  $@"
	$(Q)$(CC) $(linkflags) -Wl,--wrap=moe_cpu_open -o $@ $(filter %.o,$^) $(archives) $(libs)

# moe-run for the stand-in of the driver, whether the build has nvcc or not.
$(shimmed): $(B)/obj/moe-run.o $(B)/tests/images.o $(archives) | $(B)/shim/libcuda.so.1
	@echo "  LINK  $@"
	$(Q)mkdir -p $(@D) && $(CC) $(linkflags) -o $@ $^ $(libs)

# Makes a call of a tool fail (LD_PRELOAD); not sanitized: it stands between the tool and the sanitizer's own allocator.
$(B)/tests/fault-preload.so: tests/shim/fault-preload.c $(B)/flags
	@echo "  LINK  $@"
	$(Q)mkdir -p $(@D) && $(CC) $(std) $(WARN) -D_GNU_SOURCE -O1 -g -fPIC -shared -o $@ $< -ldl

under = $(patsubst $(PREFIX)/%,$${prefix}/%,$1)
$(B)/moe.pc: moe.pc.in VERSION FORCE  # PREFIX may differ at install time
	$(Q)mkdir -p $(@D); sed 's|@PREFIX@|$(PREFIX)|;s|@LIBDIR@|$(call under,$(LIBDIR))|;s|@INCDIR@|$(call under,$(INCDIR))|;s|@VERSION@|$(VERSION)|' $< >$@.new; \
	if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

check-layers:
	$(Q)awk -v cli="$(clisrc)" -f tests/layers.awk $(layered)
	$(Q)LC_ALL=C awk -f tests/columns.awk $(folded)

# Every header compiles alone.
check-headers: $(headers:%=$(B)/%.alone)
$(B)/%.h.alone: %.h $(B)/flags
	$(Q)mkdir -p $(@D) && echo '#include "$<"' | $(compile) -MF $@.d -MT $@ -x c -c -o $@ -

# What a GPU computes, how fast, and what profilers say of it; OUT= gets the files.  Exit 77 without a GPU, else the
# script starts make again.
.PHONY: check-device
check-device: setup
	@B=$(B) sh tests/device.sh

bench: all $(B)/tests/bench $(B)/tests/genmodel $(B)/tests/genrouting
	$(Q)$(B)/tests/bench $(B)/bin $(B)/tests

count: $(B)/tests/check-cuda-count
	$(Q)$<

# ---- set-up, demo, tests: each starts make again, so that probes run after packages are there ----
again := $(MAKE) --no-print-directory -j$(shell nproc 2>/dev/null || echo 2)
setup:
	@sh tests/setup.sh
demo: setup
	@$(again) all
	@sh tests/demo.sh
check: setup
	@$(again) test-programs $(if $(SAN),,check-headers)
	@$(MAKE) --no-print-directory run-tests TESTS="check-layers $(tests) $(fuzzers) $(scripts)"
check-long: setup
	@$(again) test-programs
	@$(MAKE) --no-print-directory run-tests TESTS="$(longs)"

# What another compiler can change: numbers and bytes, not how calls fail, names look or processes die.
.PHONY: check-compiler
compiled := $(addprefix t-,calibrate convert decode ep export generate nvfp4-rules quantize run streams threads)
check-compiler: setup
	@$(again) test-programs
	@MOE_COMPILER=1 $(MAKE) --no-print-directory run-tests TESTS="$(tests) $(fuzzers) $(compiled)"

# What threads share, under ThreadSanitizer: pools, the local communicator, the engine's core, expert-parallel runs.
.PHONY: check-threads
check-threads: setup
	@$(again) SAN=thread CUDA=0 all $(addprefix build/thread/tests/,test-comm test-core-threads test-pool genmodel)
	@$(MAKE) --no-print-directory SAN=thread CUDA=0 run-tests TESTS="test-pool test-comm test-core-threads t-ep"

# A test passes with 0, skips with 77; its log is shown when it fails.  The last line is the count.
.PHONY: run-tests
run-tests:
	@MOE_SAN=$(if $(SAN),1,) $(sanenv) CLI="$(clisrc)" LAYERED="$(layered)" FOLDED="$(folded)" sh tests/run.sh $(B) $(TESTS)
sanenv := $(if $(SAN),ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1)

# Fuzz targets are libFuzzer entry points.  gcc builds them with a driver that replays a corpus; clang makes real fuzzers.
FUZZ_SECONDS ?= 60
FUZZ ?= $(fuzzers:fuzz-%=%)
$(fuzzbins): $(B)/tests/fuzz-%: $(B)/tests/fuzz-%.o $(B)/tests/replay.o $(archives)
	@echo "  LINK  $@"
	$(Q)$(CC) $(linkflags) -o $@ $^ $(libs)
fuzz: setup
	@$(MAKE) --no-print-directory -j2 B=build/fuzz CC=clang SAN=address,undefined,fuzzer-no-link fuzz-build
	@for f in $(FUZZ); do mkdir -p build/fuzz/corpus/$$f; echo "fuzz $$f"; \
	  dict=tests/corpus/dict/$$f.dict; [ -f $$dict ] && dict=-dict=$$dict || dict=; \
	  build/fuzz/fuzz-$$f $$dict -max_total_time=$(FUZZ_SECONDS) -timeout=60 -print_final_stats=1 -max_len=65536 -rss_limit_mb=4096 \
	    -artifact_prefix=build/fuzz/$$f- build/fuzz/corpus/$$f tests/corpus/$$f >build/fuzz/$$f.log 2>&1 \
	    || { tail -40 build/fuzz/$$f.log; exit 1; }; grep -E 'number_of_executed|average_exec' build/fuzz/$$f.log; done
.PHONY: fuzz-build
fuzz-build: $(fuzzers:%=$(B)/%)
$(B)/fuzz-%: tests/fuzz/fuzz-%.c $(archives)
	@echo "  FUZZ  $@"
	$(Q)$(compile) -fsanitize=fuzzer -o $@ $< $(archives) $(libs)

# ---- install ------------------------------------------------------------------
# The public headers are all of include/moe/.  Adding one is a promise: it needs a CHANGELOG entry.
names  := $(notdir $(bins))
install: all
	$(Q)$(INSTALL) -d "$(DESTDIR)"$(BINDIR) "$(DESTDIR)"$(LIBDIR)/pkgconfig "$(DESTDIR)"$(MANDIR)/man1 "$(DESTDIR)"$(COMPDIR)/bash-completion/completions \
	  "$(DESTDIR)"$(COMPDIR)/zsh/site-functions "$(DESTDIR)"$(COMPDIR)/fish/vendor_completions.d
	$(Q)$(INSTALL) -m 755 $(bins) "$(DESTDIR)"$(BINDIR)
	$(Q)$(INSTALL) -m 644 $(B)/libmoe.a "$(DESTDIR)"$(LIBDIR)
	$(Q)$(INSTALL) -m 755 $(B)/libmoe.so "$(DESTDIR)"$(LIBDIR)/libmoe.so.$(VERSION)
	$(Q)ln -sfn libmoe.so.$(VERSION) "$(DESTDIR)"$(LIBDIR)/$(soname)
	$(Q)ln -sfn $(soname) "$(DESTDIR)"$(LIBDIR)/libmoe.so
	$(Q)$(INSTALL) -m 644 $(B)/moe.pc "$(DESTDIR)"$(LIBDIR)/pkgconfig
	$(Q)$(INSTALL) -d "$(DESTDIR)"$(INCDIR)/moe && $(INSTALL) -m 644 $(public) "$(DESTDIR)"$(INCDIR)/moe
	$(Q)for n in $(names); do \
	  $(B)/bin/$$n --help-man >"$(DESTDIR)"$(MANDIR)/man1/$$n.1 && \
	  $(B)/bin/$$n --help-complete bash >"$(DESTDIR)"$(COMPDIR)/bash-completion/completions/$$n && \
	  $(B)/bin/$$n --help-complete zsh >"$(DESTDIR)"$(COMPDIR)/zsh/site-functions/_$$n && \
	  $(B)/bin/$$n --help-complete fish >"$(DESTDIR)"$(COMPDIR)/fish/vendor_completions.d/$$n.fish || exit 1; done

uninstall:
	$(Q)rm -f $(public:include/%="$(DESTDIR)"$(INCDIR)/%) $(addprefix "$(DESTDIR)"$(LIBDIR)/,libmoe.so.$(VERSION) $(soname) libmoe.so)
	$(Q)rmdir "$(DESTDIR)"$(INCDIR)/moe 2>/dev/null || true
	$(Q)rm -f $(names:%="$(DESTDIR)"$(BINDIR)/%) $(names:%="$(DESTDIR)"$(MANDIR)/man1/%.1) \
	  $(names:%="$(DESTDIR)"$(COMPDIR)/bash-completion/completions/%) $(names:%="$(DESTDIR)"$(COMPDIR)/zsh/site-functions/_%) \
	  $(names:%="$(DESTDIR)"$(COMPDIR)/fish/vendor_completions.d/%.fish) "$(DESTDIR)"$(LIBDIR)/libmoe.a "$(DESTDIR)"$(LIBDIR)/pkgconfig/moe.pc

clean:
	$(Q)rm -rf build

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

-include $(shell find $(B) -name '*.d' 2>/dev/null)
