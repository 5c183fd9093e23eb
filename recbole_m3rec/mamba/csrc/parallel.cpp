// A small pool of threads that sleep between jobs.
//
// Units are taken from a shared counter, so that threads that start late or run slowly take fewer. The
// caller works too and never waits for a thread that has not begun: with the machine busy elsewhere a
// job costs no more than doing it alone. After a fork the child, which has inherited no threads, starts
// a pool of its own.
#include "parallel.h"

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace m3rec {
namespace {

// Numbers too small for a normal float are taken as 0 while a kernel runs: on some processors each
// operation on them costs a hundred cycles, and decayed states are full of them.
class FlushTinyNumbers {
#if defined(__SSE2__)
public:
    FlushTinyNumbers() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
    ~FlushTinyNumbers() { _mm_setcsr(before_); }

private:
    unsigned before_;
#endif
};

struct Job {
    Index units;
    void (*work)(void *, Index, Index);
    void *context;
    std::atomic<Index> next{0};

    void take_units(Index slot) {
        const FlushTinyNumbers flush{};
        for (Index unit = next.fetch_add(1); unit < units; unit = next.fetch_add(1)) work(context, unit, slot);
    }
};

struct Pool {
    std::mutex caller;  // held during a job
    std::mutex state;   // guards what follows
    std::condition_variable wake, finished;
    Job *job = nullptr;
    Index places = 0;   // threads that may still join the job
    Index joined = 0;   // slots given out
    Index working = 0;
    Index started = 0;
};

Pool *pool = nullptr;
pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;

// The parent's pool is left behind in the child: its mutexes may have been held at the fork.
void forget_pool() {
    pool = nullptr;
    pool_lock = PTHREAD_MUTEX_INITIALIZER;
}

Pool *get_pool() {
    pthread_mutex_lock(&pool_lock);
    static bool registered = false;
    if (!registered) registered = pthread_atfork(nullptr, nullptr, forget_pool) == 0;
    if (pool == nullptr && registered) pool = new (std::nothrow) Pool;  // never freed: its threads outlive main
    Pool *const found = pool;
    pthread_mutex_unlock(&pool_lock);
    return found;
}

void *serve(void *argument) {
    Pool &mine = *static_cast<Pool *>(argument);
    std::unique_lock<std::mutex> lock(mine.state);
    for (;;) {
        mine.wake.wait(lock, [&] { return mine.places > 0; });
        --mine.places;
        ++mine.working;
        const Index slot = ++mine.joined;  // the caller has slot 0
        Job *const job = mine.job;
        lock.unlock();
        job->take_units(slot);
        lock.lock();
        if (--mine.working == 0) mine.finished.notify_one();
    }
}

// Starts threads until there are `wanted`; signals stay with the threads of the program.
void grow(Pool &mine, Index wanted) {
    if (mine.started >= wanted) return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (pthread_t thread; mine.started < wanted; ++mine.started) {
        if (pthread_create(&thread, nullptr, serve, &mine) != 0) break;
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace

void run_parallel(Index units, Index threads, void (*work)(void *, Index, Index), void *context) {
    Job job;
    job.units = units;
    job.work = work;
    job.context = context;
    if (threads > units) threads = units;
    Pool *const mine = threads > 1 ? get_pool() : nullptr;
    if (mine == nullptr || !mine->caller.try_lock()) {
        job.take_units(0);
        return;
    }
    {
        const std::lock_guard<std::mutex> lock(mine->state);
        grow(*mine, threads - 1);
        mine->job = &job;
        mine->joined = 0;
        mine->places = threads - 1 < mine->started ? threads - 1 : mine->started;
    }
    mine->wake.notify_all();
    job.take_units(0);
    {
        std::unique_lock<std::mutex> lock(mine->state);
        mine->places = 0;
        mine->finished.wait(lock, [&] { return mine->working == 0; });
    }
    mine->caller.unlock();
}

}  // namespace m3rec
