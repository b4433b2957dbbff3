/* The functions of the claim word by themselves, for a look at the instructions that another machine would run. */
#include "_claim.h"

uint32_t claims(claim_t *word, uint32_t most) { return claim_tasks(word, most); }
uint32_t takes_back(claim_t *word, uint32_t most) { return claim_take_back(word, most); }
void offers(claim_t *word, uint32_t tasks) { claim_offer(word, tasks); }
uint32_t looks(claim_t *word) { return claim_unclaimed(word); }
