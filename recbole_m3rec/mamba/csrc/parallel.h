// Runs the units of a job on several threads.
#pragma once

#include "kernels.h"

namespace m3rec {

// Calls work(context, unit, slot) once for every unit; `slot` is below `threads` and no two threads have
// the same at a time. Returns when all units are done. Where another job is running already (calls from
// several Python threads), or no thread can be started, the caller does all the work itself.
void run_parallel(Index units, Index threads, void (*work)(void *context, Index unit, Index slot), void *context);

}  // namespace m3rec
