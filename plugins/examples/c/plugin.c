// The ratio of two numbers, from the WIT alone: no development kit, no library, no generated code.
//
//     clang --target=wasm32 -O2 -mbulk-memory -nostdlib -Wl,--no-entry -Wl,-z,stack-size=16384 -o ratio.module.wasm plugin.c
//     larder plugin build --module ratio.module.wasm
//
// The structures have the layout that the component model's canonical ABI defines for the types of `transform.wit`.
#include <stdbool.h>
#include <stdint.h>

typedef struct { const void *data; uint32_t size; } list; // also a string
typedef struct { uint8_t scalar, is_list, nullable, nullable_items; list doc; } type_of_field;
typedef struct { list name; type_of_field type; } field;
typedef struct { list name, version, doc; bool reads_time; list inputs, outputs; } signature;
typedef struct { uint32_t row; list message; } failed_row;
typedef struct { uint8_t is_error; list error_or_outputs, failed; } result;

#define TEXT(text) { text, sizeof(text) - 1 }
#define EXPORT(name) __attribute__((export_name(name)))
enum { FLOAT64 = 4 };

static const field inputs[] = {
    { TEXT("numerator"), { FLOAT64, false, true, false, TEXT("The numerator.") } },
    { TEXT("denominator"), { FLOAT64, false, true, false, TEXT("The denominator, at least 0.") } },
};
static const field outputs[] = {
    { TEXT("ratio"), { FLOAT64, false, true, false, TEXT("The ratio; null if an input is null or the denominator is 0.") } },
};
static const signature ratio = {
    TEXT("ratio"), TEXT("0.1.0"), TEXT("The ratio of two numbers."), false, { inputs, 2 }, { outputs, 1 },
};

// Memory is only needed during a call: a call starts with an empty heap, and the end of the call empties it again.
extern uint8_t __heap_base;
static uint8_t *heap = &__heap_base;

static void *allocate(uint32_t bytes) {
    uint8_t *start = heap;
    heap += (bytes + 7) & ~7u;
    int32_t missing = (int32_t)(((uintptr_t)heap + 65535) / 65536 - __builtin_wasm_memory_size(0));
    if (missing > 0 && __builtin_wasm_memory_grow(0, missing) == (uintptr_t)-1) __builtin_trap();
    return start;
}

EXPORT("cabi_realloc") void *reallocate(void *old, uint32_t old_bytes, uint32_t align, uint32_t bytes) {
    void *moved = allocate(bytes);
    if (old_bytes > 0) __builtin_memcpy(moved, old, old_bytes < bytes ? old_bytes : bytes);
    return moved;
}

EXPORT("cabi_post_transform") void free_all(result *unused) { heap = &__heap_base; }
EXPORT("cabi_post_configure") void free_config(result *unused) { heap = &__heap_base; }

EXPORT("describe") const signature *describe(void) { return &ratio; }

EXPORT("configure") const result *configure(const char *config, uint32_t bytes) {
    static const result accepted;
    return &accepted;
}

// A column of the frame has one bit per row in words of 8 bytes, and then the values.
EXPORT("transform") const result *transform(uint32_t rows, const uint8_t *frame, uint32_t bytes) {
    static result computed;
    uint32_t words = (rows + 63) / 64, column = words + rows;
    const uint64_t *bits = (const uint64_t *)frame;
    const double *values = (const double *)frame;
    uint64_t *present = allocate(column * 8);
    double *ratios = (double *)present + words;
    failed_row *failed = allocate(rows * sizeof(failed_row));
    uint32_t failures = 0;
    __builtin_memset(present, 0, column * 8);
    for (uint32_t row = 0; row < rows; row++) {
        double numerator = values[words + row], denominator = values[column + words + row];
        uint64_t bit = (uint64_t)1 << row % 64;
        if ((bits[row / 64] & bits[column + row / 64] & bit) == 0 || denominator == 0) continue;
        if (denominator < 0) {
            failed[failures++] = (failed_row){ row, TEXT("the denominator is below 0") };
            continue;
        }
        present[row / 64] |= bit;
        ratios[row] = numerator / denominator;
    }
    computed.error_or_outputs = (list){ present, column * 8 };
    computed.failed = (list){ failed, failures };
    return &computed;
}
