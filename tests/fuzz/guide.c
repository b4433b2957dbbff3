/* What code compiled with -fsanitize-coverage=trace-pc,trace-cmp calls, handed on to libFuzzer once it is attached.

   libFuzzer has no counters for trace-pc, which is what gcc knows. In a compiled module all but EXPORTED is hidden, and
   the counters are its own. As a library that is loaded before all others it serves atheris, which would find the
   functions of these names in the runtime of AddressSanitizer, where they do nothing. A module also counts how
   many basic blocks it has run, for tests.fuzz.cost. */

#include <stddef.h>
#include <stdint.h>

#define EXPORTED __attribute__((visibility("default")))

enum { PLACES = 1 << 15 };

typedef struct {
    uintptr_t pc;
    uintptr_t flags;
} place_t;

typedef struct {
    void (*counters_init)(uint8_t *, uint8_t *);
    void (*pcs_init)(const uintptr_t *, const uintptr_t *);
    void (*cmp1)(uint8_t, uint8_t);
    void (*cmp2)(uint16_t, uint16_t);
    void (*cmp4)(uint32_t, uint32_t);
    void (*cmp8)(uint64_t, uint64_t);
    void (*const_cmp1)(uint8_t, uint8_t);
    void (*const_cmp2)(uint16_t, uint16_t);
    void (*const_cmp4)(uint32_t, uint32_t);
    void (*const_cmp8)(uint64_t, uint64_t);
    void (*on_switch)(uint64_t, uint64_t *);
} fuzzer_t;

static uint8_t counters[PLACES];
static place_t places[PLACES];
static fuzzer_t fuzzer;
static uint64_t blocks;

EXPORTED void attach_libfuzzer(const fuzzer_t *given)
{
    fuzzer = *given;
}

EXPORTED uint64_t blocks_run(void)
{
    return blocks;
}

EXPORTED void count_for_libfuzzer(void)
{
    for (size_t i = 0; i < PLACES; i++)
        places[i].pc = (uintptr_t)&counters[i];
    fuzzer.counters_init(counters, counters + PLACES);
    fuzzer.pcs_init((const uintptr_t *)places, (const uintptr_t *)(places + PLACES));
}

void __sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *stop)
{
    if (fuzzer.counters_init)
        fuzzer.counters_init(start, stop);
}

void __sanitizer_cov_pcs_init(const uintptr_t *start, const uintptr_t *stop)
{
    if (fuzzer.pcs_init)
        fuzzer.pcs_init(start, stop);
}

void __sanitizer_cov_trace_pc(void)
{
    /* the distance is the same wherever the module is loaded */
    uintptr_t distance = (uintptr_t)__builtin_return_address(0) - (uintptr_t)&attach_libfuzzer;
    counters[(distance ^ distance >> 15) % PLACES]++;
    blocks++;
}

/* Tail calls: libFuzzer takes the return address for the place of the comparison. */
#define HAND_ON(name, type)                                                                                            \
    void __sanitizer_cov_trace_##name(type a, type b)                                                                  \
    {                                                                                                                  \
        if (fuzzer.name)                                                                                               \
            fuzzer.name(a, b);                                                                                         \
    }

HAND_ON(cmp1, uint8_t)
HAND_ON(cmp2, uint16_t)
HAND_ON(cmp4, uint32_t)
HAND_ON(cmp8, uint64_t)
HAND_ON(const_cmp1, uint8_t)
HAND_ON(const_cmp2, uint16_t)
HAND_ON(const_cmp4, uint32_t)
HAND_ON(const_cmp8, uint64_t)

void __sanitizer_cov_trace_switch(uint64_t value, uint64_t *cases)
{
    if (fuzzer.on_switch)
        fuzzer.on_switch(value, cases);
}

void __sanitizer_cov_trace_cmpf(float a, float b)
{
    (void)a, (void)b;
}

void __sanitizer_cov_trace_cmpd(double a, double b)
{
    (void)a, (void)b;
}
