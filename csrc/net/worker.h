// Threads that work on one call: a team shares the columns of one block of rows.
#pragma once

#include <sched.h>
#include <time.h>

#include <climits>
#include <cstdint>
#include <cstdlib>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels.h"
#include "simd/simd.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr int64_t CACHE_LINE = 64;
constexpr int SPINS = 1024;  // before a waiting thread gives its processor away

// Sleep while *word is `value`, for at most `ms` milliseconds (0: until it is woken), or not at
// all.
inline void sleep_while(const unsigned* word, unsigned value, int ms = 0) {
#ifdef __linux__
    const timespec limit = {0, ms * 1000000l};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, ms ? &limit : nullptr, nullptr, 0);
#else
    (void)word, (void)value, (void)ms;
    sched_yield();
#endif
}

inline void wake_all(const unsigned* word) {
#ifdef __linux__
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#else
    (void)word;
#endif
}

// A number that threads wait for: briefly in a loop, then asleep.
struct alignas(CACHE_LINE) Signal {
    unsigned value;
    unsigned asleep;

    unsigned now() const { return __atomic_load_n(&value, __ATOMIC_ACQUIRE); }

    void set(unsigned next) {
        __atomic_store_n(&value, next, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&asleep, __ATOMIC_SEQ_CST)) wake_all(&value);
    }
    void add() {
        __atomic_add_fetch(&value, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&asleep, __ATOMIC_SEQ_CST)) wake_all(&value);
    }
    // Return some time after the number ceased to be `old`, or after some `ms` where that is not 0.
    void wait_while(unsigned old, int ms = 0) {
        for (int turn = 0; turn < SPINS; ++turn) {
            if (now() != old) return;
            pause();
        }
        __atomic_add_fetch(&asleep, 1, __ATOMIC_SEQ_CST);
        do sleep_while(&value, old, ms);
        while (!ms && now() == old);
        __atomic_sub_fetch(&asleep, 1, __ATOMIC_RELAXED);
    }
};

// A point that all of `size` threads reach before any goes on.
struct alignas(CACHE_LINE) Barrier {
    int size;
    bool stop[2];  // the team's own view of Watch::stop, by turns
    alignas(CACHE_LINE) int arrived;
    Signal phase;

    void wait() {
        if (size == 1) return;
        const unsigned now = phase.now();
        if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) == size) {
            __atomic_store_n(&arrived, 0, __ATOMIC_RELAXED);
            phase.set(now + 1);
            return;
        }
        phase.wait_while(now);
    }
};

// Memory of one call, handed out piece by piece; without a base it only counts.
struct Arena {
    char* base;
    int64_t used;

    template <typename T>
    T* take(int64_t count) {
        T* piece = base ? reinterpret_cast<T*>(base + used) : nullptr;
        used += (count * int64_t(sizeof(T)) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
        return piece;
    }
};

// The memory of one call: take(arena) lays it out, first to count it and then for good.
struct Memory {
    char* base = nullptr;

    Memory() = default;
    Memory(const Memory&) = delete;
    ~Memory() { free(base); }

    template <typename Take>
    auto layout(Take take) {
        Arena count = {};
        take(count);
        base = static_cast<char*>(aligned_alloc(CACHE_LINE, count.used + CACHE_LINE));
        Arena arena = {base, 0};
        return take(arena);
    }
};

constexpr int WATCH_MS = 50;

// Asks the caller every 50 ms whether to stop; only the calling thread asks.
struct Watch {
    bool (*interrupted)();
    int stop;
    int64_t next;  // ns

    void ask() {
        timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        const int64_t now = t.tv_sec * int64_t(1000000000) + t.tv_nsec;
        if (now < next) return;
        if (next && !stop && interrupted()) __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
        next = now + WATCH_MS * int64_t(1000000);
    }
};

struct Range {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
};

// The rank-th of `ranks` shares of [0, count).
VAEFAST_INLINE Range share(int64_t count, int64_t rank, int64_t ranks) {
    return {count * rank / ranks, count * (rank + 1) / ranks};
}

// One thread's place in the call.
struct Worker {
    int id, threads;
    int team, teams;  // whose rows it works on
    int rank, ranks;  // whose columns, within the team
    Barrier* everyone;
    Barrier* mates;
    Watch* watch;

    void sync() const { mates->wait(); }

    // Look whether to stop, before a sync; after it, stopped() is the same for the whole team. Two
    // checks take turns, so that a mate may still read the last one's answer while the next is
    // made.
    void check_stop() const {
        ++checks;
        if (rank) return;
        if (id == 0) watch->ask();
        mates->stop[checks & 1] = __atomic_load_n(&watch->stop, __ATOMIC_ACQUIRE);
    }
    bool stopped() const { return mates->stop[checks & 1]; }

    mutable unsigned checks = 0;
};

// How many teams share `rows` rows where a team of one thread should have `enough` of them: fewer
// rows are worked on together, each thread taking columns.
VAEFAST_INLINE int64_t teams_of(int64_t rows, int64_t threads, int64_t enough) {
    const int64_t teams = rows / enough;
    return teams < 1 ? 1 : teams < threads ? teams : threads;
}

// body(worker) on every thread, in at most `teams` teams.
template <typename Body>
Outcome run_workers(const Call& call, int64_t teams, Body body) {
    Watch watch = {call.interrupted, 0, 0};
    Barrier everyone = {};
    auto* barriers = static_cast<Barrier*>(aligned_alloc(CACHE_LINE, teams * sizeof(Barrier)));
    if (!barriers) return Outcome::no_memory;
    Signal finished = {};  // how many threads are
#ifdef _OPENMP
#pragma omp parallel num_threads(call.threads)
#endif
    {
#ifdef _OPENMP
        const int got = omp_get_num_threads(), id = omp_get_thread_num();
#else
        const int got = 1, id = 0;
#endif
        const int groups = teams < got ? int(teams) : got;
#ifdef _OPENMP
#pragma omp single
#endif
        {
            everyone.size = got;
            for (int t = 0; t < groups; ++t) {
                const Range own = share(got, t, groups);
                barriers[t] = {};
                barriers[t].size = int(own.size());
            }
        }
        int team = 0;
        while (id >= share(got, team, groups).end) ++team;
        const Range own = share(got, team, groups);
        const Worker worker = {id,
                               got,
                               team,
                               groups,
                               int(id - own.begin),
                               int(own.size()),
                               &everyone,
                               &barriers[team],
                               &watch};
        body(worker);
        finished.add();
        if (id == 0)  // the caller goes on asking while others work
            for (unsigned done; (done = finished.now()) != unsigned(got);) {
                watch.ask();
                finished.wait_while(done, WATCH_MS);
            }
    }
    free(barriers);
    return watch.stop ? Outcome::interrupted : Outcome::done;
}

// body(block) over this team's rows of N, in even blocks of at most `rows`, until it stops.
template <typename Body>
void for_each_block(const Worker& worker, int64_t N, int64_t rows, Body body) {
    const Range own = share(N, worker.team, worker.teams);
    const int64_t blocks = (own.size() + rows - 1) / rows;
    for (int64_t b = 0; b < blocks; ++b) {
        const Range part = share(own.size(), b, blocks);
        worker.check_stop();
        worker.sync();
        if (worker.stopped()) return;
        body(Range{own.begin + part.begin, own.begin + part.end});
    }
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
