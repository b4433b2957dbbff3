/* A worker and a router race for the tasks of batches, as threads or as processes; each task must go to exactly one.
 *
 * races threads|processes ROUNDS SEED: prints what went wrong of how many tasks, and fails where anything did. The worker
 * writes a result for each task that it claimed, and publishes how many there are; the router reads those in between.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "_claim.h"

#define MOST_TASKS 24

typedef struct {
    claim_t word;
    _Atomic uint32_t done;
    _Atomic uint32_t turn; /* of the round: the worker waits for odd ones, the router for even ones */
    uint32_t results[MOST_TASKS];
    uint8_t ran[MOST_TASKS];
} board_t;

static board_t *board;
static uint32_t rounds, seed;

static uint32_t drawn(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 16;
}

static void await(uint32_t turn) {
    while (atomic_load_explicit(&board->turn, memory_order_acquire) != turn)
        sched_yield();
}

static void *work(void *unused) {
    uint32_t state = seed + 1, round, at, claimed;
    (void)unused;
    for (round = 0; round < rounds; round++) {
        await(2 * round + 1);
        for (at = 0; (claimed = claim_tasks(&board->word, 1 + drawn(&state) % 4)) > 0;) {
            for (; claimed; claimed--, at++) {
                board->ran[at]++;
                board->results[at] = round ^ at;
                atomic_store_explicit(&board->done, at + 1, memory_order_release);
            }
        }
        atomic_store_explicit(&board->turn, 2 * round + 2, memory_order_release);
    }
    return NULL;
}

int main(int count, char **arguments) {
    uint32_t state, round, tasks, left, next, done, k, wrong = 0, stale = 0;
    uint64_t all = 0, taken = 0;
    pthread_t worker;
    pid_t child = -1;
    int is_threads;
    if (count != 4)
        return 2;
    is_threads = strcmp(arguments[1], "threads") == 0;
    rounds = (uint32_t)atol(arguments[2]);
    state = seed = (uint32_t)atol(arguments[3]);
    board = mmap(NULL, sizeof(board_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED)
        return 2;
    if (is_threads) {
        if (pthread_create(&worker, NULL, work, NULL))
            return 2;
    } else if ((child = fork()) == 0) {
        work(NULL);
        _exit(0);
    }
    for (round = 0; round < rounds; round++) {
        left = tasks = 1 + drawn(&state) % MOST_TASKS;
        memset(board->ran, 0, sizeof(board->ran));
        memset(board->results, 0xFF, sizeof(board->results));
        atomic_store_explicit(&board->done, 0, memory_order_relaxed);
        claim_offer(&board->word, tasks);
        atomic_store_explicit(&board->turn, 2 * round + 1, memory_order_release);
        if (drawn(&state) % 4) /* let the worker begin */
            while (claim_unclaimed(&board->word) == tasks)
                sched_yield();
        while (claim_unclaimed(&board->word)) {
            if (drawn(&state) % 16 == 0) {
                next = claim_take_back(&board->word, 1 + drawn(&state) % 3);
                taken += left - next;
                left = next;
            }
            done = atomic_load_explicit(&board->done, memory_order_acquire);
            for (k = 0; k < done; k++)
                stale += board->results[k] != (round ^ k);
        }
        await(2 * round + 2);
        for (k = 0; k < tasks; k++)
            wrong += board->ran[k] != (k < left);
        all += tasks;
    }
    if (is_threads)
        pthread_join(worker, NULL);
    else
        waitpid(child, NULL, 0);
    printf("%u rounds, %llu tasks, %llu taken back: %u lost or doubled, %u stale results\n", rounds,
           (unsigned long long)all, (unsigned long long)taken, wrong, stale);
    return wrong || stale;
}
