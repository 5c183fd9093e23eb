// Runs the units of a job on several threads.
#pragma once

#include "kernels.h"

namespace m3rec {

// Calls work(context, unit, slot) once for every unit; `slot` is below both `threads` and `units`,
// and no two threads have the same. Returns when all units are done. Where another job is running
// already (calls from several Python threads), or no thread can be started, the caller does all the
// work itself.
void run_parallel(Index units, Index threads, void (*work)(void *context, Index unit, Index slot),
                  void *context);

// From now on, have the threads of an OpenMP runtime do the work. `entry` is its GOMP_parallel, or
// null.
void use_openmp(void *entry);

}  // namespace m3rec
