// The order that streams and events give to work, for the stand-in for a GPU (runtime.cpp).
//
// Nearly everything is done before the call that asks for it returns. Collectives of NCCL are not:
// they end when other processes have come. So whatever comes after one waits for it, by the order
// that CUDA documents; and where no order is given, work that touches the memory of a collective is
// a fault, because on a GPU the two would run at once.
//
// The order is kept from the moment when there is a communicator. Each stream counts its work, and a
// Clock says how much of each stream's work comes before something.

#pragma once

#include "machine.h"

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

typedef std::map<uintptr_t, long long> Clock;  // by streams

inline void merge(Clock& clock, const Clock& other) {
    for (auto& [stream, place] : other) clock[stream] = std::max(clock[stream], place);
}

class Order {
  public:
    typedef std::unique_lock<std::recursive_mutex> Lock;
    typedef unsigned long long Number;

    struct Collective {
        std::string name;
        uintptr_t stream;
        long long place;  // in its stream
        Clock before;
        const void* owner;
        std::string failure;  // why it will never end; empty if it may
    };

    // Below are the streams that each device has from the start: default_stream() and the next one,
    // which is that of a thread.
    static constexpr uintptr_t first_stream = 0x1000;
    static uintptr_t default_stream(int device) { return 4 * device + 1; }

    bool kept = false;

    // One that is destroyed stays, for its work may be under way.
    void add(uintptr_t stream, int device, bool blocks) { streams[stream] = {device, blocks, {}}; }

    // What comes before the next work of a stream. The default stream waits for all the streams of
    // its device that are not non-blocking, and they for it.
    Clock& before(uintptr_t stream) {
        Stream& own = streams.at(stream);
        merge(own.before, host);
        for (auto& [key, other] : streams)
            if (other.device == own.device && own.blocks && other.blocks &&
                (is_default(stream) || is_default(key)))
                merge(own.before, other.before);
        return own.before;
    }

    void wait_event(uintptr_t stream, const Clock& event) { merge(before(stream), event); }

    // Everything that was asked of a device.
    Clock before_all(int device) {
        Clock all = host;
        for (auto& [key, stream] : streams)
            if (stream.device == device) merge(all, stream.before);
        return all;
    }

    // The host has waited for this: it comes before all that is asked for from now on.
    void wait_host(const Clock& clock) {
        merge(host, clock);
        for (Accesses* accesses : {&ordinary, &collective})
            for (auto access = accesses->begin(); access != accesses->end();)
                access = access->second.place <= at(host, std::get<0>(access->first))
                             ? accesses->erase(access)
                             : std::next(access);
    }

    // Waits until no collective that comes before is under way. Returns one that failed, or null.
    // Those of the caller's own group do not count.
    const Collective* wait(Lock& lock, const Clock& clock, Number group = 0, Number size = 0) {
        for (;;) {
            bool pending = false;
            for (auto& [number, work] : collectives) {
                if (number - group < size || work.place > at(clock, work.stream)) continue;
                if (!work.failure.empty()) return &work;
                pending = true;
            }
            if (!pending) return nullptr;
            changed.wait(lock);
        }
    }

    bool is_pending(const Clock& clock) const {
        for (auto& [number, work] : collectives)
            if (work.place <= at(clock, work.stream)) return true;
        return false;
    }

    // What touches the same memory as this work, with no order between the two; empty if nothing.
    std::string conflict(uintptr_t stream, const Touched* touched, size_t count, bool with_all) {
        const Clock& clock = before(stream);
        for (size_t i = 0; i < count; i++)
            for (Accesses* accesses : {&collective, &ordinary}) {
                if (accesses == &ordinary && !with_all) continue;
                for (auto& [key, access] : *accesses) {
                    auto [other, begin, end, written] = key;
                    if (other != stream && access.place > at(clock, other) &&
                        (written || touched[i].written) && begin < end_of(touched[i]) &&
                        begin_of(touched[i]) < end)
                        return access.name;
                }
            }
        return "";
    }

    // Adds work to a stream; returns its place. That of collectives has an owner.
    long long add_work(uintptr_t stream, const char* name, const Touched* touched, size_t count,
                       const void* owner = nullptr) {
        long long place = ++before(stream)[stream];
        for (size_t i = 0; i < count; i++)
            if (touched[i].bytes)
                (owner ? collective : ordinary)[{stream, begin_of(touched[i]),
                                                         end_of(touched[i]), touched[i].written}] = {
                    place, name, owner};
        return place;
    }

    Number add_collective(uintptr_t stream, const char* name, const Touched* touched, size_t count,
                          const void* owner) {
        Clock before_it = before(stream);
        long long place = add_work(stream, name, touched, count, owner);
        collectives[++numbered] = {name, stream, place, before_it, owner, ""};
        return numbered;
    }

    // The host knows that all collectives of this owner have ended, be it without success.
    void close(const void* owner) {
        Clock ended;
        for (auto& [key, access] : collective)
            if (access.owner == owner) merge(ended, {{std::get<0>(key), access.place}});
        for (auto work = collectives.begin(); work != collectives.end();)
            work = work->second.owner == owner ? collectives.erase(work) : std::next(work);
        wait_host(ended);
        changed.notify_all();
    }

    // The memory is someone else's from now on.
    void forget(uintptr_t begin, size_t bytes) {
        for (Accesses* accesses : {&ordinary, &collective})
            for (auto access = accesses->begin(); access != accesses->end();)
                access = std::get<1>(access->first) < begin + bytes &&
                                 begin < std::get<2>(access->first)
                             ? accesses->erase(access)
                             : std::next(access);
    }

    std::map<Number, Collective> collectives;  // those that are under way, and failed ones
    std::condition_variable_any changed;  // a collective ended or failed

  private:
    struct Stream {
        int device;
        bool blocks;
        Clock before;
    };
    struct Access {
        long long place;
        std::string name;
        const void* owner;
    };
    typedef std::map<std::tuple<uintptr_t, uintptr_t, uintptr_t, bool>, Access> Accesses;

    static long long at(const Clock& clock, uintptr_t stream) {
        auto found = clock.find(stream);
        return found == clock.end() ? 0 : found->second;
    }
    static uintptr_t begin_of(const Touched& touched) { return uintptr_t(touched.begin); }
    static uintptr_t end_of(const Touched& touched) { return begin_of(touched) + touched.bytes; }

    static bool is_default(uintptr_t stream) { return stream < first_stream && stream % 4 == 1; }

    Clock host;  // what the host has waited for
    std::map<uintptr_t, Stream> streams;
    Accesses ordinary, collective;
    Number numbered = 0;
};
