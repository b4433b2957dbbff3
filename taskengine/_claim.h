/* The claim word of a batch: which of its tasks the worker has claimed, and how many it may claim.
 *
 * The worker runs no task that it has not claimed; the router takes back only tasks that are not claimed. Both change
 * one aligned 32-bit word by compare-and-swap, so that each task is one's or the other's, whatever the order in which
 * the machine shows their other stores. Low half: claimed tasks; high half: tasks that may be claimed.
 */
#ifndef TASKENGINE_CLAIM_H
#define TASKENGINE_CLAIM_H

#include <stdatomic.h>
#include <stdint.h>

#define CLAIM_MOST 0xFFFFu

typedef _Atomic uint32_t claim_t;

static inline uint32_t claim_claimed(uint32_t word) { return word & CLAIM_MOST; }

static inline uint32_t claim_limit(uint32_t word) { return word >> 16; }

/* Router: offer a batch of at most CLAIM_MOST tasks, before its message is sent. */
static inline void claim_offer(claim_t *word, uint32_t tasks) {
    atomic_store_explicit(word, tasks << 16, memory_order_release);
}

/* Worker: claim up to `most` tasks; return how many, 0 where none is left. */
static inline uint32_t claim_tasks(claim_t *word, uint32_t most) {
    uint32_t seen = atomic_load_explicit(word, memory_order_acquire), left;
    do {
        left = claim_limit(seen) > claim_claimed(seen) ? claim_limit(seen) - claim_claimed(seen) : 0;
        if (left > most)
            left = most;
        if (left == 0)
            return 0;
    } while (!atomic_compare_exchange_weak_explicit(word, &seen, seen + left, memory_order_acq_rel,
                                                    memory_order_acquire));
    return left;
}

/* Router: tasks that are not claimed. A word that makes no sense, as task code can write one, has none. */
static inline uint32_t claim_unclaimed(claim_t *word) {
    uint32_t seen = atomic_load_explicit(word, memory_order_acquire);
    return claim_limit(seen) > claim_claimed(seen) ? claim_limit(seen) - claim_claimed(seen) : 0;
}

/* Router: take back up to `most` of the last tasks; return how many of the batch are left to the worker. */
static inline uint32_t claim_take_back(claim_t *word, uint32_t most) {
    uint32_t seen = atomic_load_explicit(word, memory_order_acquire), taken;
    do {
        taken = claim_limit(seen) > claim_claimed(seen) ? claim_limit(seen) - claim_claimed(seen) : 0;
        if (taken > most)
            taken = most;
        if (taken == 0)
            return claim_limit(seen);
    } while (!atomic_compare_exchange_weak_explicit(word, &seen, seen - (taken << 16), memory_order_acq_rel,
                                                    memory_order_acquire));
    return claim_limit(seen) - taken;
}

#endif
