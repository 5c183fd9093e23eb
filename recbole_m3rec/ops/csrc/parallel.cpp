// Where the program has an OpenMP runtime of its own (torch has), its threads do the work: between
// parallel regions they spin for some milliseconds, and other threads would have to share the
// processors with them. Else, and after a fork, which that runtime does not survive, it is a small
// pool of threads that sleep between jobs.
//
// Units are taken from a shared counter, so that threads that start late or run slowly take fewer.
// The caller works too.
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
public:
#if defined(__SSE2__)
    FlushTinyNumbers() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
    ~FlushTinyNumbers() { _mm_setcsr(before_); }

private:
    unsigned before_;
#else
    FlushTinyNumbers() {}
#endif
};

struct Job {
    Index units;
    void (*work)(void *, Index, Index);
    void *context;
    std::atomic<Index> next{0}, slots{0};

    void take_units() {
        Index unit = next.fetch_add(1);
        if (unit >= units) return;
        const FlushTinyNumbers flush{};
        const Index slot = slots.fetch_add(1);
        for (; unit < units; unit = next.fetch_add(1)) work(context, unit, slot);
    }
};

// OpenMP's entry point in all of GNU's, LLVM's and Intel's runtimes: run(data) on some threads at
// once.
using OpenMp = void (*)(void (*run)(void *data), void *data, unsigned threads, unsigned flags);
std::atomic<OpenMp> openmp{nullptr};

struct Pool {
    std::mutex caller;  // held during a job
    std::mutex state;   // guards what follows
    std::condition_variable wake, finished;
    Job *job = nullptr;
    Index places = 0;  // threads that may still join the job
    Index working = 0;
    Index started = 0;
};

Pool *pool = nullptr;
pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;

// The parent's pool is left behind in the child: its mutexes may have been held at the fork.
void forget_threads() {
    openmp = nullptr;
    pool = nullptr;
    pool_lock = PTHREAD_MUTEX_INITIALIZER;
}

// When the library is loaded: OpenMP's threads may run before a first job of ours does.
const bool registered = pthread_atfork(nullptr, nullptr, forget_threads) == 0;

Pool *get_pool() {
    pthread_mutex_lock(&pool_lock);
    if (pool == nullptr && registered)
        pool = new (std::nothrow) Pool;  // never freed: its threads outlive main
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
        Job *const job = mine.job;
        lock.unlock();
        job->take_units();
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

// The caller never waits for a thread that has not begun: with the machine busy elsewhere a job
// costs no more than doing it alone.
void run_in_pool(Pool &mine, Job &job, Index helpers) {
    {
        const std::lock_guard<std::mutex> lock(mine.state);
        grow(mine, helpers);
        mine.job = &job;
        mine.places = helpers < mine.started ? helpers : mine.started;
    }
    mine.wake.notify_all();
    job.take_units();
    std::unique_lock<std::mutex> lock(mine.state);
    mine.places = 0;
    mine.finished.wait(lock, [&] { return mine.working == 0; });
}

}  // namespace

void use_openmp(void *entry) { openmp = reinterpret_cast<OpenMp>(entry); }

void run_parallel(Index units, Index threads, void (*work)(void *, Index, Index), void *context) {
    Job job;
    job.units = units;
    job.work = work;
    job.context = context;
    Pool *const mine = threads > 1 && units > 1 ? get_pool() : nullptr;
    if (mine == nullptr || !mine->caller.try_lock()) {
        job.take_units();
        return;
    }
    if (const OpenMp run = openmp) {
        // All threads, even with fewer units: a runtime ends threads that a smaller team leaves
        // over.
        run([](void *data) { static_cast<Job *>(data)->take_units(); }, &job,
            static_cast<unsigned>(threads), 0);
    } else {
        run_in_pool(*mine, job, (threads < units ? threads : units) - 1);
    }
    mine->caller.unlock();
}

}  // namespace m3rec
