/* Runs row and tile kernels over a file of inputs: driver OPERATOR N K MODE COLUMNS <in >out.

   Numba's modules refer to Python's and to its own runtime. The kernels need memory of that; what
   raises exceptions is left unresolved. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    size_t references;
    void *destructor, *destructor_info, *data;
    size_t size;
    void *allocator;
} MemInfo;

/* Memory is never given back: the process is short. */
static MemInfo *memory(size_t size) {
    MemInfo *info = calloc(1, sizeof *info);
    info->references = 1;
    info->size = size;
    info->data = aligned_alloc(64, (size + 128) / 64 * 64);
    return info;
}
MemInfo *NRT_MemInfo_alloc_aligned(size_t size, unsigned align) { (void)align; return memory(size); }
void NRT_Free(void *place) { (void)place; }
void NRT_MemInfo_call_dtor(void *info) { (void)info; }
void numba_gil_ensure(void *state) { (void)state; }
void numba_gil_release(void *state) { (void)state; }

/* All that is reshaped is contiguous. */
int numba_attempt_nocopy_reshape(int64_t nd, const int64_t *dims, const int64_t *strides,
                                 int64_t newnd, const int64_t *newdims, int64_t *newstrides,
                                 int64_t itemsize, int fortran) {
    (void)nd, (void)dims, (void)strides, (void)fortran;
    for (int64_t i = newnd - 1, step = itemsize; i >= 0; step *= newdims[i--]) newstrides[i] = step;
    return 1;
}

void luce_softmax(float *, float *, float *, int64_t, int64_t, int64_t, int64_t);
void luce_cross_entropy(float *, float *, float *, int64_t *, float *, int64_t, int64_t, int64_t);

static void *given(size_t size) {
    void *place = malloc(size);
    if (fread(place, 1, size, stdin) != size) exit(3);
    return place;
}

int main(int count, char **words) {
    if (count != 6) return 2;
    int64_t N = atoll(words[2]), K = atoll(words[3]), mode = atoll(words[4]), columns = atoll(words[5]);
    float *x = given(N * K * sizeof *x), *out = calloc(N * K, sizeof *out);
    float *lse = calloc(N, sizeof *lse), *loss = calloc(N, sizeof *loss);
    if (!strcmp(words[1], "softmax")) {
        luce_softmax(x, out, lse, N, K, mode, columns);
    } else {
        luce_cross_entropy(x, out, lse, given(N * sizeof(int64_t)), loss, N, K, columns);
    }
    fwrite(out, sizeof *out, N * K, stdout);
    fwrite(lse, sizeof *lse, N, stdout);
    fwrite(loss, sizeof *loss, N, stdout);
    return 0;
}
