// What the stand-in for the CUDA runtime and the driver (runtime.cpp) has for those for libraries,
// and for kernels.

#pragma once

#include <cstddef>

// A range of the device's memory that some work reads or writes.
struct Touched {
    const void* begin;
    size_t bytes;
    bool written;
};

constexpr size_t most_touched = 256;  // by one kernel

// What becomes of work that is asked for.
enum Turn : int {
    RUN = 0,    // everything before it is done: it may be done now
    SKIP = 1,   // it waits for a collective that has failed: on a GPU it would never be done
    FAULT = 2,  // it touches memory that a collective touches, with no order between the two
};

extern "C" {
bool stand_in_executes();
void stand_in_counts_product();

// Whether all these bytes are memory of the device, in one allocation.
bool stand_in_has_allocated(const void* begin, size_t bytes);

// Says on standard error, and to whoever asks for the error's text, what is wrong; returns `status`.
__attribute__((format(printf, 2, 3))) int stand_in_refuses(int status, const char* format, ...);

// What this thread was last refused for.
const char* stand_in_reason();

// Adds work to a stream, and waits for its turn.
Turn stand_in_turn(const char* name, void* stream, const Touched* touched, size_t count);

// Whether this thread records a stream (cudaStreamBeginCapture); its work is not done then, but kept.
bool stand_in_records();

// Keeps work of the stream that is recorded: what a replay calls, with what. It returns a status of
// the runtime, and so does this.
int stand_in_keeps(const char* name, void* stream, const Touched* touched, size_t count,
                   int (*work)(void*), void* with);

// For NCCL. The device of this thread, and the number of a device on its host.
int stand_in_device();
int stand_in_number(int device);
void stand_in_keeps_order();

// Adds a collective to a stream: a number that is not 0, or 0 if it is refused. Its own thread
// waits for its turn (false: it will never come), and says when it ended, or why it never will.
// A failed one holds its stream up until its owner is closed.
unsigned long long stand_in_begins(const void* owner, const char* name, int device, void* stream,
                                   const Touched* touched, size_t count);
bool stand_in_waits(unsigned long long first, size_t count);  // of one group
void stand_in_ends(unsigned long long collective, const char* failure);
void stand_in_closes(const void* owner);
}
