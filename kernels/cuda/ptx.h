/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/ptx.h - every PTX statement of the kernels, one function each, with a twin that does the same
 * on the host, for the .cu files as C++ (tests/shim/cuda/). Included by launch.h.
 *
 * Fragments are those of the PTX manual: in a matrix of 8 rows of 16 bytes, lane l holds bytes 4 (l % 4) to
 * 4 (l % 4) + 3 of row l / 4. */
#ifndef MOE_KERNELS_CUDA_PTX_H
#define MOE_KERNELS_CUDA_PTX_H

#if defined(__CUDACC__)
#define PTX_SHARED(p) ((uint32_t)__cvta_generic_to_shared(p))

/* ---- tensor cores and fragments: all lanes of a warp together ---- */

/* d += a b, in float32: a 16 x 16 (row-major), b 16 x 8 (column-major), of float16; d 16 x 8. */
DEVICE void mma_16816_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* The same of bfloat16. */
DEVICE void mma_16816_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* Four matrices from shared memory: `row` of lane l is the address of row l % 8 of matrix l / 8, a multiple
 * of 16; m[i] is the lane's part of matrix i. */
DEVICE void ldmatrix_x4(uint32_t m[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(PTX_SHARED(row)) : "memory");
}
/* Two matrices: of lanes 0 to 15 the addresses count. */
DEVICE void ldmatrix_x2(uint32_t m[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(m[0]), "=r"(m[1]) : "r"(PTX_SHARED(row)) : "memory");
}
/* Four matrices of 8 x 8 values of 16 bits, each transposed. */
DEVICE void ldmatrix_x4_trans(uint32_t m[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(PTX_SHARED(row)) : "memory");
}
/* A matrix of 8 x 8 values of 16 bits, transposed. */
DEVICE uint32_t movmatrix_trans(uint32_t m)
{
    uint32_t t;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(t) : "r"(m));
    return t;
}

/* ---- asynchronous copies from global to shared memory, by each thread for itself ---- */

/* 16 bytes, past the first cache; both addresses are multiples of 16.  Until the wait, the target is
 * undefined; after it the thread itself sees the bytes, and others after a barrier. */
DEVICE void cp_async_16(void *to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(PTX_SHARED(to)), "l"(from) : "memory");
}
/* 4 bytes; addresses are multiples of 4. */
DEVICE void cp_async_4(void *to, const void *from)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(PTX_SHARED(to)), "l"(from) : "memory");
}
/* The copies since the last commit are a group.  wait: until at most n (a constant) of the newest groups are
 * not done. */
DEVICE void cp_async_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }
#define cp_async_wait(n) asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory")

/* ---- loads and stores of 16 bytes; addresses are multiples of 16 ---- */

DEVICE void load_16(uint32_t v[4], const void *p)
{
    const uint4 q = *(const uint4 *)p;
    v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
}
DEVICE void store_16(void *p, const uint32_t v[4])
{
    *(uint4 *)p = make_uint4(v[0], v[1], v[2], v[3]);
}

/* ---- shared memory by addresses that are numbers, which a kernel can count with ---- */

typedef uint32_t shared_at;
DEVICE shared_at shared_address(const void *p) { return PTX_SHARED(p); }
DEVICE void ldmatrix_x4_at(uint32_t m[4], shared_at row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(row) : "memory");
}
DEVICE void ldmatrix_x2_at(uint32_t m[2], shared_at row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(m[0]), "=r"(m[1]) : "r"(row) : "memory");
}
DEVICE void ldmatrix_x4_trans_at(uint32_t m[4], shared_at row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(row) : "memory");
}
/* 16 or 8 bytes, or as many zeros where !on; then nothing is read. (A number of bytes in a register would
 * become a tree of branches.) */
DEVICE void cp_async_16_or_zero(shared_at to, const void *from, bool on)
{
    asm volatile("{\n.reg .pred off;\nsetp.eq.u32 off, %2, 0;\n"
                 "cp.async.cg.shared.global [%0], [%1], 16, off;\n}" ::"r"(to), "l"(from), "r"((uint32_t)on)
                 : "memory");
}
DEVICE void cp_async_8_or_zero(shared_at to, const void *from, bool on)
{
    asm volatile("{\n.reg .pred off;\nsetp.eq.u32 off, %2, 0;\n"
                 "cp.async.ca.shared.global [%0], [%1], 8, off;\n}" ::"r"(to), "l"(from), "r"((uint32_t)on)
                 : "memory");
}
DEVICE void cp_async_16_at(shared_at to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
DEVICE float load_shared_f32(shared_at p)
{
    float v;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(p) : "memory");
    return v;
}
DEVICE void load_shared_16(uint32_t v[4], shared_at p)
{
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(p) : "memory");
}
/* Where `on`, v becomes the 16 bytes at p; where not, it stays, without a move. */
DEVICE void load_shared_16_if(uint32_t v[4], shared_at p, bool on)
{
    asm volatile("{\n.reg .pred on;\nsetp.ne.u32 on, %5, 0;\n"
                 "@on ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];\n}"
                 : "+r"(v[0]), "+r"(v[1]), "+r"(v[2]), "+r"(v[3]) : "r"(p), "r"((uint32_t)on)
                 : "memory");
}

/* ---- numbers ---- */

/* v, and what is computed from it is computed after this, not before a loop around it, where it would take a
 * register all the while. */
DEVICE uint32_t computed_here(uint32_t v)
{
    asm volatile("" : "+r"(v));
    return v;
}
/* The bits of a where those of the mask are set, else those of b, in one instruction, which the compiler does
 * not take apart. */
DEVICE uint32_t choose_bits(uint32_t mask, uint32_t a, uint32_t b)
{
    uint32_t r;
    asm("lop3.b32 %0, %1, %2, %3, 0xe4;" : "=r"(r) : "r"(a), "r"(b), "r"(mask));
    return r;
}
/* Two E4M3 codes as two float16, exactly; low byte, low half. */
DEVICE uint32_t f16x2_from_e4m3x2(uint32_t two)
{
    uint32_t h;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(h) : "h"((uint16_t)two));
    return h;
}
DEVICE float f32_from_f16(uint32_t low_half)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"((uint16_t)low_half));
    return f;
}
DEVICE uint32_t f16_from_f32(float f) /* to nearest, ties to even */
{
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}
/* Two floats as two bfloat16, low and high half, to nearest, ties to even; a NaN becomes 0x7fff. */
DEVICE uint32_t bf16x2_from_f32(float low, float high)
{
    uint32_t two;
    asm("cvt.rn.bf16x2.f32 %0, %2, %1;" : "=r"(two) : "f"(low), "f"(high));
    return two;
}
/* Products of the halves, each rounded to nearest; subnormals are kept. */
DEVICE uint32_t mul_f16x2(uint32_t a, uint32_t b)
{
    uint32_t p;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(p) : "r"(a), "r"(b));
    return p;
}
/* Eight E2M1 codes, the first in the lowest bits, as four pairs of float16 in order. */
#if defined(__CUDA_ARCH_FAMILY_SPECIFIC__) && __CUDA_ARCH__ >= 1000
#define PTX_HAS_E2M1 1
DEVICE void f16_from_e2m1x8(uint32_t h[4], uint32_t codes)
{
    asm("{\n.reg .b8 b0, b1, b2, b3;\nmov.b32 {b0, b1, b2, b3}, %4;\n"
        "cvt.rn.f16x2.e2m1x2 %0, b0;\ncvt.rn.f16x2.e2m1x2 %1, b1;\n"
        "cvt.rn.f16x2.e2m1x2 %2, b2;\ncvt.rn.f16x2.e2m1x2 %3, b3;\n}"
        : "=r"(h[0]), "=r"(h[1]), "=r"(h[2]), "=r"(h[3]) : "r"(codes));
}
#else
#define PTX_HAS_E2M1 0
#endif

#else /* ---- the host's twins; what they share is in tests/shim/cuda/ ---- */

DEVICE void mma_16816_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) { shim_mma_f16(d, a, b); }
DEVICE void mma_16816_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) { shim_mma_bf16(d, a, b); }
DEVICE void ldmatrix_x4(uint32_t m[4], const void *row) { shim_ldmatrix(m, row, 4, 0); }
DEVICE void ldmatrix_x2(uint32_t m[2], const void *row) { shim_ldmatrix(m, row, 2, 0); }
DEVICE void ldmatrix_x4_trans(uint32_t m[4], const void *row) { shim_ldmatrix(m, row, 4, 1); }
DEVICE uint32_t movmatrix_trans(uint32_t m) { return shim_movmatrix(m); }
DEVICE void cp_async_16(void *to, const void *from) { shim_copy(to, from, 16, 16); }
DEVICE void cp_async_4(void *to, const void *from) { shim_copy(to, from, 4, 4); }
DEVICE void cp_async_commit(void) { shim_copy_commit(); }
DEVICE void cp_async_wait(unsigned n) { shim_copy_wait(n); }
DEVICE void load_16(uint32_t v[4], const void *p) { shim_move(v, p, 16, p); }
DEVICE void store_16(void *p, const uint32_t v[4]) { shim_move(p, v, 16, p); }
typedef uintptr_t shared_at;
DEVICE shared_at shared_address(const void *p) { return (uintptr_t)p; }
DEVICE void ldmatrix_x4_at(uint32_t m[4], shared_at row) { shim_ldmatrix(m, (const void *)row, 4, 0); }
DEVICE void ldmatrix_x2_at(uint32_t m[2], shared_at row) { shim_ldmatrix(m, (const void *)row, 2, 0); }
DEVICE void ldmatrix_x4_trans_at(uint32_t m[4], shared_at row)
{
    shim_ldmatrix(m, (const void *)row, 4, 1);
}
DEVICE void cp_async_16_or_zero(shared_at to, const void *from, bool on)
{
    shim_copy((void *)to, from, on ? 16 : 0, 16);
}
DEVICE void cp_async_8_or_zero(shared_at to, const void *from, bool on)
{
    shim_copy((void *)to, from, on ? 8 : 0, 8);
}
DEVICE void cp_async_16_at(shared_at to, const void *from) { shim_copy((void *)to, from, 16, 16); }
DEVICE float load_shared_f32(shared_at p) { return *(const float *)p; }
DEVICE void load_shared_16(uint32_t v[4], shared_at p)
{
    shim_move(v, (const void *)p, 16, (const void *)p);
}
DEVICE void load_shared_16_if(uint32_t v[4], shared_at p, bool on)
{
    if (on) shim_move(v, (const void *)p, 16, (const void *)p);
}
DEVICE uint32_t computed_here(uint32_t v) { return v; }
DEVICE uint32_t choose_bits(uint32_t mask, uint32_t a, uint32_t b) { return (a & mask) | (b & ~mask); }
DEVICE uint32_t f16x2_from_e4m3x2(uint32_t two)
{
    return shim_f16_from_e4m3(two & 255) | (uint32_t)shim_f16_from_e4m3(two >> 8 & 255) << 16;
}
DEVICE float f32_from_f16(uint32_t low_half) { return shim_f32_from_f16((uint16_t)low_half); }
DEVICE uint32_t f16_from_f32(float f) { return shim_f16_from_f32(f); }
DEVICE uint32_t ptx_bf16(float f)
{
    const uint32_t u = __float_as_uint(f);
    return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
DEVICE uint32_t bf16x2_from_f32(float low, float high) { return ptx_bf16(low) | ptx_bf16(high) << 16; }
DEVICE uint32_t mul_f16x2(uint32_t a, uint32_t b)
{
    uint32_t low = shim_f16_from_f32(f32_from_f16(a & 0xffff) * f32_from_f16(b & 0xffff));
    return low | (uint32_t)shim_f16_from_f32(f32_from_f16(a >> 16) * f32_from_f16(b >> 16)) << 16;
}
/* The shim builds sources as sm_90 would: without the conversion of E2M1, unless told otherwise. */
#ifndef PTX_HAS_E2M1
#define PTX_HAS_E2M1 0
#endif
DEVICE void f16_from_e2m1x8(uint32_t h[4], uint32_t codes)
{
    static const uint16_t value[8] = { 0, 0x3800, 0x3c00, 0x3e00, 0x4000, 0x4200, 0x4400, 0x4600 };
    for (int i = 0; i < 8; i++, codes >>= 4) {
        uint32_t v = value[codes & 7] | (codes & 8) << 12;
        h[i / 2] = i % 2 ? h[i / 2] | v << 16 : v;
    }
}
#endif

#endif
