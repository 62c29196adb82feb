// What the stand-in for the CUDA runtime and the driver (runtime.cpp) has for the one for cuBLAS.

#include <cstddef>

extern "C" {
bool stand_in_executes();
void stand_in_counts_product();

// Whether all these bytes are memory of the device, in one allocation.
bool stand_in_has_allocated(const void* begin, size_t bytes);

// Says on standard error, and to whoever asks for the error's text, what is wrong; returns `status`.
__attribute__((format(printf, 2, 3))) int stand_in_refuses(int status, const char* format, ...);
}
