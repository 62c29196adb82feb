// Stands for the CUDA runtime and for the driver where there is no GPU: the calls that CuPy makes,
// with CUDA 13's ABI, on the host's memory. Names, values and the order of arguments are those of
// cuda_runtime_api.h and cuda.h.
//
// Whatever is asked of a device is done before the call returns, whatever the stream; so an order
// that streams and events would have to keep is not tested, except with collectives (order.h). What
// a GPU refuses is refused: an error with a sentence of its own, which is on standard error as well,
// for not every caller reports what it is told.
//
// The environment says which devices there are: GPUS_OF_THE_HOST is how many the host has, one if it
// is not set, and CUDA_VISIBLE_DEVICES which of them this process sees.

#include "machine.h"
#include "order.h"

#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

constexpr char GPUS_OF_THE_HOST[] = "NPFORMER_EMULATED_GPUS";

// The runtime's errors and the driver's, which have the same values.
enum Error : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    MEMORY_ALLOCATION = 2,
    INVALID_MEMCPY_DIRECTION = 21,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};
enum cudaDeviceAttr : int {
    cudaDevAttrMaxThreadsPerBlock = 1,
    cudaDevAttrMaxSharedMemoryPerBlock = 8,
    cudaDevAttrWarpSize = 10,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaMemcpyKind : int {
    cudaMemcpyHostToHost = 0,
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3,
    cudaMemcpyDefault = 4,
};
enum CUfunction_attribute : int {
    CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0,
    CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1,
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
};
enum cudaMemoryType : int {
    cudaMemoryTypeUnregistered = 0,
    cudaMemoryTypeHost = 1,
    cudaMemoryTypeDevice = 2,
};
struct cudaPointerAttributes {
    cudaMemoryType type;
    int device;
    void *device_pointer, *host_pointer;
    long reserved[8];
};
struct cudaDeviceProp {
    char name[256], uuid[16], luid[8];
    unsigned luid_nodes;
    size_t memory, shared_of_block;
    int registers_of_block, warp_size;
    size_t pitch;
    int threads_of_block, widest_block[3], widest_grid[3];
    size_t constant_memory;
    int major, minor;
    size_t texture_alignment, texture_pitch_alignment;
    int processors;
    char others[180];
    int pci_bus, pci_device, pci_domain;
    char rest[424];  // nothing of what follows is asked for
};
static_assert(sizeof(cudaDeviceProp) == 1008, "");
constexpr unsigned cudaEventDisableTiming = 2, cudaStreamNonBlocking = 1;
constexpr int cudaStreamCaptureStatusNone = 0, cudaStreamCaptureStatusActive = 1;

// An H100, but for the number of its processors.
constexpr unsigned most_threads = 1024, widest_block[] = {1024, 1024, 64};
constexpr unsigned widest_grid[] = {0x7fffffff, 65535, 65535};
constexpr int warp_size = 32, major_capability = 9;
constexpr int always_shared = 48 << 10, most_shared = 227 << 10;  // bytes of a block
constexpr size_t memory_size = size_t(80) << 30, page = 4096, alignment = 512;

// A module is a library that has, for each kernel, launch_<kernel>, most_threads_of_<kernel>,
// touched_by_<kernel> and kept_for_<kernel>, and shared_of_blocks, the bytes of shared memory that its kernels name in their
// sources, all together.
struct Kernel {
    const char* (*launch)(const unsigned* shape, size_t shared, void** arguments) = nullptr;
    std::string name;
    size_t (*touched)(void** arguments, Touched* out) = nullptr;
    void** (*kept)(void** arguments) = nullptr;
    unsigned threads = most_threads;
    int named = 0, shared = always_shared;  // bytes of shared memory: in the source, and by a launch
};
struct Module {
    void* library = nullptr;
    std::map<std::string, std::unique_ptr<Kernel>> kernels;
};
struct Event {
    bool timed = true, recorded = false;
    long long at = 0;  // microseconds of the device
    Clock before;
};
struct Block {
    size_t size, mapped;
    char* map;
    int device;
    long long number;  // of the allocation
};

// Work that was recorded, and the allocations that it touches, which must then still be the same.
struct Work {
    std::string name;
    std::vector<Touched> touched;
    std::vector<long long> allocations;
    std::function<int(const unsigned* grid)> run;
    void* function = nullptr;  // of a launch, and its shape
    unsigned shape[6] = {}, shared = 0;
    void** arguments = nullptr;
};
struct Graph {
    std::deque<Work> work;
    bool invalid = false;
};

// A graph that can be launched; launches in it may have other grids, or be left out.
struct Executable {
    std::shared_ptr<Graph> graph;
    std::map<const Work*, std::array<unsigned, 3>> grids;
    std::set<const Work*> left_out;
};

// In the order of stand_in_counts.
enum Count {
    LAUNCHES,
    PRODUCTS,
    COPIES,
    MEMSETS,
    SYNCHRONIZATIONS,
    ALLOCATIONS,
    COLLECTIVES,
    COUNTS
};

struct Machine {
    std::recursive_mutex mutex;  // one call at a time
    bool executes = true;
    int processors = 1;
    long long counts[COUNTS] = {};
    std::map<uintptr_t, Block> allocated;
    std::unordered_map<void*, size_t> pinned;
    std::vector<size_t> in_use;  // bytes of each device
    std::vector<int> numbers;    // which of the host's devices these are
    std::unordered_map<void*, std::unique_ptr<Module>> modules;
    std::unordered_set<void*> kernels;
    std::unordered_map<void*, int> streams;  // and their devices
    std::unordered_map<void*, Event> events;
    std::unordered_map<void*, std::shared_ptr<Graph>> graphs;
    std::unordered_map<void*, Executable> executables;
    uintptr_t next_handle = Order::first_stream;
    Order order;

    // Everything that a device is asked for takes a microsecond: what is chosen by its time is the
    // same whatever else the host does, and is what asks for less.
    long long now() const {
        return counts[LAUNCHES] + counts[PRODUCTS] + counts[COPIES] + counts[MEMSETS];
    }
};
// Not destroyed when the process ends, for collectives may be under way.
static Machine& device = *new Machine;
static thread_local int current = 0;           // of the devices
static thread_local bool has_context = false;  // a thread has none before the runtime gives it one
static thread_local char reason[512] = "no error";
static thread_local void* recorded = nullptr;  // the stream that this thread records, and where
static thread_local std::shared_ptr<Graph> recording;

#define EXPORT extern "C" __attribute__((visibility("default")))
#define RUNTIME EXPORT int
#define DRIVER EXPORT int
#define LOCKED Order::Lock lock(device.mutex)

EXPORT int stand_in_refuses(int status, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    fprintf(stderr, "the stand-in for a GPU refuses: %s\n", reason);
    return status;
}

#define REFUSE(status, ...) return stand_in_refuses(status, __VA_ARGS__)

EXPORT const char* stand_in_reason() { return reason; }

EXPORT bool stand_in_executes() { return device.executes; }

EXPORT void stand_in_counts_product() {
    LOCKED;
    device.counts[PRODUCTS]++;
}

// What Python asks and says

EXPORT void stand_in_begin(int executes, int processors) {
    device.executes = executes;
    device.processors = processors;
    const char* all = getenv(GPUS_OF_THE_HOST);
    int count = all ? atoi(all) : 1;
    if (const char* chosen = getenv("CUDA_VISIBLE_DEVICES")) {
        // As CUDA reads it: what follows something that is no device is not seen.
        for (char* end; *chosen; chosen = *end ? end + 1 : end) {
            long number = strtol(chosen, &end, 10);
            if (end == chosen || number < 0 || number >= count) break;
            device.numbers.push_back(number);
            if (*end != ',') break;
        }
    } else {
        for (int number = 0; number < count; number++) device.numbers.push_back(number);
    }
    device.in_use.resize(device.numbers.size());
    for (size_t i = 0; i < device.numbers.size(); i++)
        for (int thread : {0, 1}) device.order.add(Order::default_stream(i) + thread, i, true);
}

EXPORT void stand_in_counts(long long* out) {
    LOCKED;
    memcpy(out, device.counts, sizeof device.counts);
}

// Stands for the functions of the runtime that this file does not have.
EXPORT int stand_in_has_no(const char* function) {
    REFUSE(NOT_SUPPORTED, "it has no %s", function);
}

// The device

RUNTIME cudaDriverGetVersion(int* version) {
    *version = 13000;
    return SUCCESS;
}

RUNTIME cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

RUNTIME cudaGetDeviceCount(int* count) {
    *count = device.numbers.size();
    return *count ? SUCCESS : NO_DEVICE;
}

RUNTIME cudaGetDevice(int* number) {
    *number = current;
    return device.numbers.empty() ? NO_DEVICE : SUCCESS;
}

static bool is_device(int number) { return number >= 0 && size_t(number) < device.numbers.size(); }

RUNTIME cudaSetDevice(int number) {
    if (!is_device(number)) REFUSE(INVALID_DEVICE, "there is no device %d", number);
    current = number;
    has_context = true;
    return SUCCESS;
}

EXPORT int stand_in_device() { return current; }
EXPORT int stand_in_number(int number) { return device.numbers.at(number); }

RUNTIME cudaDeviceGetPCIBusId(char* out, int size, int number) {
    if (!is_device(number)) REFUSE(INVALID_DEVICE, "there is no device %d", number);
    if (snprintf(out, size, "0000:%02X:00.0", stand_in_number(number) + 1) >= size)
        REFUSE(INVALID_VALUE, "%d bytes are too few for the name of a bus", size);
    return SUCCESS;
}

RUNTIME cudaDeviceGetAttribute(int* value, int attribute, int number) {
    if (!is_device(number)) REFUSE(INVALID_DEVICE, "there is no device %d", number);
    switch (attribute) {
        case cudaDevAttrMaxThreadsPerBlock: *value = most_threads; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = always_shared; break;
        case cudaDevAttrWarpSize: *value = warp_size; break;
        case cudaDevAttrMultiProcessorCount: *value = device.processors; break;
        case cudaDevAttrComputeCapabilityMajor: *value = major_capability; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = most_shared; break;
        default: *value = 0;  // CuPy asks for all that there are; what is not above, it has not
    }
    return SUCCESS;
}

RUNTIME cudaGetDeviceProperties(cudaDeviceProp* out, int number) {
    if (!is_device(number)) REFUSE(INVALID_DEVICE, "there is no device %d", number);
    *out = {};
    strcpy(out->name, "a stand-in for a GPU");
    out->memory = memory_size;
    out->shared_of_block = always_shared;
    out->warp_size = warp_size;
    out->threads_of_block = most_threads;
    for (int axis = 0; axis < 3; axis++) {
        out->widest_block[axis] = widest_block[axis];
        out->widest_grid[axis] = widest_grid[axis];
    }
    out->major = major_capability;
    out->processors = device.processors;
    out->pci_bus = stand_in_number(number) + 1;
    return SUCCESS;
}

// What a thread may not do while it records a stream. The recording is lost, as with CUDA.
static int cannot_record(const char* what) {
    recording->invalid = true;
    REFUSE(CAPTURE_UNSUPPORTED, "%s while a stream is recorded", what);
}

// The host waits.
static int synchronize(Order::Lock& lock, const Clock& clock) {
    if (recording) return cannot_record("waiting for the device");
    device.counts[SYNCHRONIZATIONS]++;
    if (!device.order.kept) return SUCCESS;
    if (auto failed = device.order.wait(lock, clock))
        REFUSE(LAUNCH_FAILED, "a GPU would never finish %s: %s", failed->name.c_str(),
               failed->failure.c_str());
    device.order.wait_host(clock);
    return SUCCESS;
}

// Whether everything is done; the host knows it then.
static int query(const Clock& clock) {
    if (!device.order.kept) return SUCCESS;
    if (device.order.is_pending(clock)) return NOT_READY;
    device.order.wait_host(clock);
    return SUCCESS;
}

RUNTIME cudaDeviceSynchronize() {
    LOCKED;
    return synchronize(lock, device.order.before_all(current));
}

RUNTIME cudaGetLastError() { return SUCCESS; }
RUNTIME cudaPeekAtLastError() { return SUCCESS; }
EXPORT const char* cudaGetErrorString(int) { return stand_in_reason(); }
EXPORT const char* cudaGetErrorName(int error) {
    switch (error) {
        case SUCCESS: return "cudaSuccess";
        case MEMORY_ALLOCATION: return "cudaErrorMemoryAllocation";
        case NO_DEVICE: return "cudaErrorNoDevice";
        case NOT_READY: return "cudaErrorNotReady";
        case NOT_SUPPORTED: return "cudaErrorNotSupported";
        default: return "cudaError";
    }
}

// Memory

// The allocation that has an address, or null.
static const std::pair<const uintptr_t, Block>* found(const void* address) {
    auto place = uintptr_t(address);
    auto after = device.allocated.upper_bound(place);
    if (after == device.allocated.begin()) return nullptr;
    auto& before = *--after;
    return place < before.first + before.second.size ? &before : nullptr;
}

EXPORT bool stand_in_has_allocated(const void* begin, size_t bytes) {
    LOCKED;
    auto block = found(begin);
    return block && uintptr_t(begin) + bytes <= block->first + block->second.size;
}

// An allocation ends where a page ends (but for its alignment) that nobody may touch, so a kernel
// that runs past its end dies there, as does one that uses what was freed.
RUNTIME cudaMalloc(void** out, size_t size) {
    LOCKED;
    *out = nullptr;
    if (!is_device(current)) return NO_DEVICE;
    has_context = true;
    if (size == 0) return SUCCESS;
    // Not said aloud: CuPy makes room and asks again.
    if (device.in_use[current] + size > memory_size) return MEMORY_ALLOCATION;
    size_t aligned = (size + alignment - 1) / alignment * alignment;
    size_t usable = (aligned + page - 1) / page * page;
    void* map = mmap(nullptr, usable + page, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return MEMORY_ALLOCATION;
    mprotect(static_cast<char*>(map) + usable, page, PROT_NONE);
    char* place = static_cast<char*>(map) + usable - aligned;
    if (device.executes) memset(place, 0xff, size);  // NaN
    device.in_use[current] += size;
    device.allocated[uintptr_t(place)] = {size, usable + page, static_cast<char*>(map), current,
                                          ++device.counts[ALLOCATIONS]};
    *out = place;
    return SUCCESS;
}

RUNTIME cudaFree(void* place) {
    LOCKED;
    has_context = true;
    if (!place) return SUCCESS;
    if (recording) return cannot_record("memory that is freed");
    auto block = device.allocated.find(uintptr_t(place));
    if (block == device.allocated.end()) REFUSE(INVALID_VALUE, "%p was not allocated", place);
    if (device.order.kept) {  // a GPU finishes everything first
        device.order.wait(lock, device.order.before_all(block->second.device));
        device.order.forget(block->first, block->second.size);
    }
    munmap(block->second.map, block->second.mapped);
    device.in_use[block->second.device] -= block->second.size;
    device.allocated.erase(block);
    return SUCCESS;
}

RUNTIME cudaHostAlloc(void** out, size_t size, unsigned) {
    LOCKED;
    *out = malloc(size);
    if (!*out) return MEMORY_ALLOCATION;
    device.pinned[*out] = size;
    return SUCCESS;
}

RUNTIME cudaFreeHost(void* place) {
    LOCKED;
    if (!device.pinned.erase(place)) REFUSE(INVALID_VALUE, "%p was not allocated on the host", place);
    free(place);
    return SUCCESS;
}

RUNTIME cudaMemGetInfo(size_t* left, size_t* all) {
    LOCKED;
    *left = memory_size - device.in_use.at(current);
    *all = memory_size;
    return SUCCESS;
}

static bool is_pinned(const void* address) {
    for (auto& [begin, size] : device.pinned)
        if (address >= begin && address < static_cast<char*>(begin) + size) return true;
    return false;
}

RUNTIME cudaPointerGetAttributes(cudaPointerAttributes* out, const void* address) {
    LOCKED;
    auto place = const_cast<void*>(address);
    if (auto block = found(address))
        *out = {cudaMemoryTypeDevice, block->second.device, place, nullptr, {}};
    else if (is_pinned(address))
        *out = {cudaMemoryTypeHost, 0, place, place, {}};
    else
        *out = {cudaMemoryTypeUnregistered, -1, nullptr, place, {}};
    return SUCCESS;
}

// Streams, as their order is kept. CUDA names a device's default stream 0 or 1, and a thread's 2.
static bool is_stream(void* stream) {
    return uintptr_t(stream) <= 2 || device.streams.count(stream);
}

static uintptr_t in_order(void* stream, int number = current) {
    if (uintptr_t(stream) > 2) return uintptr_t(stream);
    return Order::default_stream(number) + (uintptr_t(stream) == 2);
}

static Turn turn(Order::Lock& lock, const char* name, void* stream, const Touched* touched,
                 size_t count) {
    Order& order = device.order;
    if (!order.kept) return RUN;
    uintptr_t key = in_order(stream);
    auto other = order.conflict(key, touched, count, false);
    if (!other.empty())
        return Turn(stand_in_refuses(
            FAULT, "%s touches the memory of %s, and nothing orders the two streams", name,
            other.c_str()));
    order.add_work(key, name, touched, count);
    return order.wait(lock, order.before(key)) ? SKIP : RUN;
}

// Recording a stream: its work is kept, with its arguments as they are, and done when it is replayed.

EXPORT bool stand_in_records() { return recording != nullptr; }

static int keep(const char* name, void* stream, const Touched* touched, size_t count,
                std::function<int(const unsigned*)> run) {
    if (stream != recorded) return cannot_record((std::string(name) + " on another stream").c_str());
    Work work = {name, {touched, touched + count}, {}, std::move(run)};
    for (auto& range : work.touched) {
        auto block = range.bytes ? found(range.begin) : nullptr;
        work.allocations.push_back(block ? block->second.number : 0);
    }
    recording->work.push_back(std::move(work));
    return SUCCESS;
}

EXPORT int stand_in_keeps(const char* name, void* stream, const Touched* touched, size_t count,
                          int (*work)(void*), void* with) {
    LOCKED;
    return keep(name, stream, touched, count, [=](const unsigned*) { return work(with); });
}

static int replay(Order::Lock& lock, const Work& work, void* stream, const unsigned* grid) {
    const char* name = work.name.c_str();
    for (size_t i = 0; i < work.touched.size(); i++) {
        if (!work.allocations[i]) continue;
        auto block = found(work.touched[i].begin);
        if (!block || block->second.number != work.allocations[i])
            REFUSE(LAUNCH_FAILED, "a replay of %s touches memory that was freed", name);
    }
    switch (turn(lock, name, stream, work.touched.data(), work.touched.size())) {
        case FAULT: return LAUNCH_FAILED;
        case SKIP: return SUCCESS;
        case RUN: break;
    }
    return work.run(grid);
}

RUNTIME cudaStreamBeginCapture(void* stream, int) {
    LOCKED;
    if (!is_stream(stream)) REFUSE(INVALID_HANDLE, "a stream that does not exist");
    if (uintptr_t(stream) <= 1) REFUSE(CAPTURE_UNSUPPORTED, "the default stream cannot be recorded");
    if (recording) return cannot_record("another recording");
    recorded = stream;
    recording = std::make_shared<Graph>();
    return SUCCESS;
}

RUNTIME cudaStreamEndCapture(void* stream, void** out) {
    LOCKED;
    *out = nullptr;
    if (!recording || stream != recorded) REFUSE(INVALID_VALUE, "a stream that is not recorded");
    auto done = std::move(recording);
    recording = nullptr;
    recorded = nullptr;
    if (done->invalid) REFUSE(CAPTURE_INVALIDATED, "a recording that was lost: %s", reason);
    *out = done.get();
    device.graphs[*out] = std::move(done);
    return SUCCESS;
}

RUNTIME cudaGraphInstantiate(void** out, void* graph, unsigned long long) {
    LOCKED;
    auto place = device.graphs.find(graph);
    if (place == device.graphs.end()) REFUSE(INVALID_HANDLE, "a graph that does not exist");
    *out = reinterpret_cast<void*>(device.next_handle += 16);
    device.executables[*out].graph = place->second;
    return SUCCESS;
}

RUNTIME cudaGraphUpload(void* executable, void*) {
    LOCKED;
    if (!device.executables.count(executable)) REFUSE(INVALID_HANDLE, "a graph that does not exist");
    return SUCCESS;
}

// It counts as one launch.
RUNTIME cudaGraphLaunch(void* launched, void* stream) {
    LOCKED;
    auto place = device.executables.find(launched);
    if (place == device.executables.end() || !is_stream(stream))
        REFUSE(INVALID_HANDLE, "a graph or a stream that does not exist");
    if (recording) return cannot_record("a replay");
    device.counts[LAUNCHES]++;
    auto executable = place->second;
    for (auto& work : executable.graph->work) {
        if (executable.left_out.count(&work)) continue;
        auto changed = executable.grids.find(&work);
        auto grid = changed == executable.grids.end() ? work.shape : changed->second.data();
        if (int status = replay(lock, work, stream, grid)) return status;
    }
    return SUCCESS;
}

// What follows is the driver's. The type is CUDA_KERNEL_NODE_PARAMS_v2.
struct KernelNode {
    void* function;
    unsigned shape[6], shared;
    void **arguments, **extra;
    void *kernel, *context;
};

DRIVER cuStreamGetCaptureInfo_v2(void* stream, int* status, unsigned long long* number, void** graph,
                                 void* const** last, size_t* count) {
    static thread_local void* node;
    LOCKED;
    bool active = recording && stream == recorded;
    *status = active ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    if (!active) return SUCCESS;
    *number = 1;
    *graph = recording.get();
    *count = recording->work.empty() ? 0 : 1;
    if (*count) node = &recording->work.back();
    *last = &node;
    return SUCCESS;
}

DRIVER cuGraphKernelNodeGetParams_v2(void* node, KernelNode* out) {
    LOCKED;
    auto work = static_cast<Work*>(node);
    if (!work->function) REFUSE(INVALID_VALUE, "%s is no launch", work->name.c_str());
    *out = {work->function, {}, work->shared, work->arguments, nullptr, nullptr, nullptr};
    memcpy(out->shape, work->shape, sizeof work->shape);
    return SUCCESS;
}

// Only the grid may be another one.
DRIVER cuGraphExecKernelNodeSetParams_v2(void* executable, void* node, const KernelNode* in) {
    LOCKED;
    auto place = device.executables.find(executable);
    if (place == device.executables.end()) REFUSE(INVALID_HANDLE, "a graph that does not exist");
    auto work = static_cast<Work*>(node);
    for (int axis = 0; axis < 3; axis++)
        if (in->shape[axis] == 0 || in->shape[axis] > widest_grid[axis])
            REFUSE(INVALID_VALUE, "%s: a grid of %u blocks on axis %d", work->name.c_str(),
                   in->shape[axis], axis);
    if (in->function != work->function || in->arguments != work->arguments ||
        memcmp(in->shape + 3, work->shape + 3, 3 * sizeof(unsigned)))
        REFUSE(NOT_SUPPORTED, "a recorded launch of which more changes than its grid");
    place->second.grids[work] = {in->shape[0], in->shape[1], in->shape[2]};
    return SUCCESS;
}

DRIVER cuGraphNodeSetEnabled(void* executable, void* node, unsigned enabled) {
    LOCKED;
    auto place = device.executables.find(executable);
    if (place == device.executables.end()) REFUSE(INVALID_HANDLE, "a graph that does not exist");
    auto work = static_cast<Work*>(node);
    if (enabled)
        place->second.left_out.erase(work);
    else
        place->second.left_out.insert(work);
    return SUCCESS;
}

RUNTIME cudaGraphDestroy(void* graph) {
    LOCKED;
    if (!device.graphs.erase(graph)) REFUSE(INVALID_HANDLE, "a graph that does not exist");
    return SUCCESS;
}

RUNTIME cudaGraphExecDestroy(void* executable) {
    LOCKED;
    if (!device.executables.erase(executable)) REFUSE(INVALID_HANDLE, "a graph that does not exist");
    return SUCCESS;
}

// What cannot be recorded, and does not ask whether it is, is refused.
EXPORT Turn stand_in_turn(const char* name, void* stream, const Touched* touched, size_t count) {
    LOCKED;
    if (recording) {
        cannot_record(name);
        return FAULT;
    }
    return turn(lock, name, stream, touched, count);
}

EXPORT void stand_in_keeps_order() {
    LOCKED;
    device.order.kept = true;
}

EXPORT unsigned long long stand_in_begins(const void* owner, const char* name, int number,
                                          void* stream, const Touched* touched, size_t count) {
    LOCKED;
    if (uintptr_t(stream) > 2) {
        auto place = device.streams.find(stream);
        if (place == device.streams.end() || place->second != number)
            REFUSE(0, "%s on a stream that device %d does not have", name, number);
    }
    for (size_t i = 0; i < count; i++) {
        auto block = found(touched[i].begin);
        if (!stand_in_has_allocated(touched[i].begin, touched[i].bytes) ||
            block->second.device != number)
            REFUSE(0, "%s of %zu bytes that are not in the memory of device %d", name,
                   touched[i].bytes, number);
    }
    uintptr_t key = in_order(stream, number);
    auto other = device.order.conflict(key, touched, count, true);
    if (!other.empty())
        REFUSE(0, "%s touches the memory of %s, and nothing orders the two streams", name,
               other.c_str());
    device.counts[COLLECTIVES]++;
    return device.order.add_collective(key, name, touched, count, owner);
}

EXPORT bool stand_in_waits(unsigned long long first, size_t count) {
    LOCKED;
    for (auto number = first; number < first + count; number++) {
        Clock before = device.order.collectives.at(number).before;
        if (device.order.wait(lock, before, first, count)) return false;
    }
    return true;
}

EXPORT void stand_in_ends(unsigned long long collective, const char* failure) {
    LOCKED;
    if (failure)
        device.order.collectives.at(collective).failure = failure;
    else
        device.order.collectives.erase(collective);
    device.order.changed.notify_all();
}

EXPORT void stand_in_closes(const void* owner) {
    LOCKED;
    device.order.close(owner);
}

static int copy(void* to, const void* from, size_t size, int kind, void* stream, bool waits) {
    LOCKED;
    has_context = true;
    if (!is_stream(stream)) REFUSE(INVALID_HANDLE, "a copy on a stream that does not exist");
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
        REFUSE(INVALID_MEMCPY_DIRECTION, "a copy in the direction %d", kind);
    if (size == 0) return SUCCESS;
    bool to_device = found(to), from_device = found(from);
    if (kind != cudaMemcpyDefault) {
        if (to_device != (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice))
            REFUSE(INVALID_VALUE, "a copy of kind %d to where the %s", kind,
                   to_device ? "device has its memory" : "device has no memory");
        if (from_device != (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice))
            REFUSE(INVALID_VALUE, "a copy of kind %d from where the %s", kind,
                   from_device ? "device has its memory" : "device has no memory");
    }
    if ((to_device && !stand_in_has_allocated(to, size)) ||
        (from_device && !stand_in_has_allocated(from, size)))
        REFUSE(INVALID_VALUE, "a copy of %zu bytes past the end of an allocation", size);
    if (recording && (waits || !to_device || !from_device))
        // A replay would read the host's memory anew, where something else is by then.
        return cannot_record("a copy from or to the host's memory");
    device.counts[COPIES]++;
    Touched touched[] = {{from, from_device ? size : 0, false}, {to, to_device ? size : 0, true}};
    if (recording)
        return keep("a copy", stream, touched, 2, [=](const unsigned*) {
            memmove(to, from, size);
            return SUCCESS;
        });
    Turn found = turn(lock, "a copy", stream, touched, 2);
    if (found == FAULT) return INVALID_VALUE;
    // What is copied to memory that is not pinned is there when the call returns.
    if (waits || (!to_device && !is_pinned(to)))
        if (int status = synchronize(lock, device.order.before(in_order(stream)))) return status;
    if (found == SKIP) return SUCCESS;
    if (device.executes || !to_device || !from_device) memmove(to, from, size);
    return SUCCESS;
}

RUNTIME cudaMemcpy(void* to, const void* from, size_t size, int kind) {
    return copy(to, from, size, kind, nullptr, true);
}

RUNTIME cudaMemcpyAsync(void* to, const void* from, size_t size, int kind, void* stream) {
    return copy(to, from, size, kind, stream, false);
}

RUNTIME cudaMemsetAsync(void* place, int value, size_t size, void* stream) {
    LOCKED;
    has_context = true;
    if (!is_stream(stream)) REFUSE(INVALID_HANDLE, "a memset on a stream that does not exist");
    if (size == 0) return SUCCESS;
    if (!stand_in_has_allocated(place, size))
        REFUSE(INVALID_VALUE, "a memset of %zu bytes outside of an allocation", size);
    device.counts[MEMSETS]++;
    Touched touched = {place, size, true};
    if (recording)
        return keep("a memset", stream, &touched, 1, [=](const unsigned*) {
            if (device.executes) memset(place, value, size);
            return SUCCESS;
        });
    Turn found = turn(lock, "a memset", stream, &touched, 1);
    if (found == FAULT) return INVALID_VALUE;
    if (device.executes && found == RUN) memset(place, value, size);
    return SUCCESS;
}

RUNTIME cudaMemset(void* place, int value, size_t size) {
    return cudaMemsetAsync(place, value, size, nullptr);
}

// Streams and events

RUNTIME cudaStreamCreateWithFlags(void** out, unsigned flags) {
    LOCKED;
    if (!is_device(current)) return NO_DEVICE;
    has_context = true;
    *out = reinterpret_cast<void*>(device.next_handle += 16);
    device.streams[*out] = current;
    device.order.add(uintptr_t(*out), current, !(flags & cudaStreamNonBlocking));
    return SUCCESS;
}

RUNTIME cudaStreamCreate(void** out) { return cudaStreamCreateWithFlags(out, 0); }

RUNTIME cudaStreamCreateWithPriority(void** out, unsigned flags, int) {
    return cudaStreamCreateWithFlags(out, flags);
}

RUNTIME cudaStreamDestroy(void* stream) {
    LOCKED;
    if (!device.streams.erase(stream)) REFUSE(INVALID_HANDLE, "a stream that does not exist");
    return SUCCESS;
}

RUNTIME cudaStreamSynchronize(void* stream) {
    LOCKED;
    if (!is_stream(stream)) REFUSE(INVALID_HANDLE, "a stream that does not exist");
    return synchronize(lock, device.order.before(in_order(stream)));
}

RUNTIME cudaStreamQuery(void* stream) {
    LOCKED;
    if (!is_stream(stream)) REFUSE(INVALID_HANDLE, "a stream that does not exist");
    return query(device.order.before(in_order(stream)));
}

RUNTIME cudaStreamIsCapturing(void* stream, int* status) {
    LOCKED;
    if (!is_stream(stream)) REFUSE(INVALID_HANDLE, "a stream that does not exist");
    bool active = recording && stream == recorded;
    *status = active ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return SUCCESS;
}

RUNTIME cudaEventCreateWithFlags(void** out, unsigned flags) {
    LOCKED;
    has_context = true;
    *out = reinterpret_cast<void*>(device.next_handle += 16);
    device.events[*out].timed = !(flags & cudaEventDisableTiming);
    return SUCCESS;
}

RUNTIME cudaEventCreate(void** out) { return cudaEventCreateWithFlags(out, 0); }

RUNTIME cudaEventDestroy(void* event) {
    LOCKED;
    if (!device.events.erase(event)) REFUSE(INVALID_HANDLE, "an event that does not exist");
    return SUCCESS;
}

RUNTIME cudaEventRecord(void* event, void* stream) {
    LOCKED;
    auto place = device.events.find(event);
    if (place == device.events.end() || !is_stream(stream))
        REFUSE(INVALID_HANDLE, "an event or a stream that does not exist");
    if (recording) return cannot_record("an event");  // forks are not emulated
    place->second.recorded = true;
    place->second.at = device.now();
    if (device.order.kept) place->second.before = device.order.before(in_order(stream));
    return SUCCESS;
}

RUNTIME cudaStreamWaitEvent(void* stream, void* event, unsigned) {
    LOCKED;
    auto place = device.events.find(event);
    if (place == device.events.end() || !is_stream(stream))
        REFUSE(INVALID_HANDLE, "an event or a stream that does not exist");
    if (recording) return cannot_record("waiting for an event");
    if (device.order.kept) device.order.wait_event(in_order(stream), place->second.before);
    return SUCCESS;
}

RUNTIME cudaEventSynchronize(void* event) {
    LOCKED;
    auto place = device.events.find(event);
    if (place == device.events.end()) REFUSE(INVALID_HANDLE, "an event that does not exist");
    return synchronize(lock, Clock(place->second.before));
}

RUNTIME cudaEventQuery(void* event) {
    LOCKED;
    auto place = device.events.find(event);
    if (place == device.events.end()) REFUSE(INVALID_HANDLE, "an event that does not exist");
    return query(place->second.before);
}

RUNTIME cudaEventElapsedTime(float* out, void* begin, void* end) {
    LOCKED;
    auto a = device.events.find(begin), b = device.events.find(end);
    for (auto event : {a, b})
        if (event == device.events.end() || !event->second.timed || !event->second.recorded)
            REFUSE(INVALID_HANDLE, "the time between events that were not recorded with their times");
    *out = (b->second.at - a->second.at) / 1000.f;
    return SUCCESS;
}

// The driver

DRIVER cuGetErrorString(int, const char** out) {
    *out = reason;
    return SUCCESS;
}

DRIVER cuGetErrorName(int error, const char** out) {
    *out = cudaGetErrorName(error);
    return SUCCESS;
}

DRIVER cuCtxGetCurrent(void** out) {
    *out = has_context ? &device.numbers[current] : nullptr;  // it only has to be another each time
    return SUCCESS;
}

// `image` is what stands for machine code: the path of a library; an empty one has every kernel, and
// none can be executed.
DRIVER cuModuleLoadData(void** out, const void* image) {
    LOCKED;
    if (!has_context) REFUSE(INVALID_CONTEXT, "a module, loaded in a thread that has no context");
    auto path = static_cast<const char*>(image);
    auto module = std::make_unique<Module>();
    if (*path && !(module->library = dlopen(path, RTLD_NOW | RTLD_LOCAL)))
        REFUSE(INVALID_IMAGE, "%s", dlerror());
    *out = module.get();
    device.modules[*out] = std::move(module);
    return SUCCESS;
}

DRIVER cuModuleUnload(void* module) {
    LOCKED;
    auto place = device.modules.find(module);
    if (place == device.modules.end()) REFUSE(INVALID_HANDLE, "a module that does not exist");
    for (auto& [name, kernel] : place->second->kernels) device.kernels.erase(kernel.get());
    if (place->second->library) dlclose(place->second->library);
    device.modules.erase(place);
    return SUCCESS;
}

DRIVER cuModuleGetFunction(void** out, void* module, const char* name) {
    LOCKED;
    auto place = device.modules.find(module);
    if (place == device.modules.end()) REFUSE(INVALID_HANDLE, "a module that does not exist");
    auto& kernel = place->second->kernels[name];
    if (!kernel) {
        auto made = std::make_unique<Kernel>();
        made->name = name;
        if (void* library = place->second->library) {
            void* launch = dlsym(library, ("launch_" + made->name).c_str());
            void* threads = dlsym(library, ("most_threads_of_" + made->name).c_str());
            void* named = dlsym(library, "shared_of_blocks");
            void* touched = dlsym(library, ("touched_by_" + made->name).c_str());
            void* kept = dlsym(library, ("kept_for_" + made->name).c_str());
            if (!launch || !threads || !named || !touched || !kept)
                REFUSE(NOT_FOUND, "a module has no kernel %s", name);
            made->launch = reinterpret_cast<decltype(made->launch)>(launch);
            made->touched = reinterpret_cast<decltype(made->touched)>(touched);
            made->kept = reinterpret_cast<decltype(made->kept)>(kept);
            made->threads = *static_cast<unsigned*>(threads);
            made->named = *static_cast<int*>(named);
            made->shared -= made->named;
        }
        kernel = std::move(made);
        device.kernels.insert(kernel.get());
    }
    *out = kernel.get();
    return SUCCESS;
}

DRIVER cuFuncGetAttribute(int* out, int attribute, void* function) {
    LOCKED;
    if (!device.kernels.count(function)) REFUSE(INVALID_HANDLE, "a kernel that does not exist");
    auto kernel = static_cast<Kernel*>(function);
    switch (attribute) {
        case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *out = kernel->threads; break;
        case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *out = kernel->named; break;
        case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *out = kernel->shared; break;
        default: REFUSE(NOT_SUPPORTED, "it knows no attribute %d of a kernel", attribute);
    }
    return SUCCESS;
}

DRIVER cuFuncSetAttribute(void* function, int attribute, int value) {
    LOCKED;
    if (!device.kernels.count(function)) REFUSE(INVALID_HANDLE, "a kernel that does not exist");
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
        REFUSE(NOT_SUPPORTED, "it sets no attribute %d of a kernel", attribute);
    auto kernel = static_cast<Kernel*>(function);
    if (value < 0 || value > most_shared - kernel->named)
        REFUSE(INVALID_VALUE, "%s: %d bytes of shared memory, of %d that a block can have",
               kernel->name.c_str(), value, most_shared - kernel->named);
    kernel->shared = value;
    return SUCCESS;
}

DRIVER cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                      unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                      void* stream, void** arguments, void** extra) {
    LOCKED;
    if (!has_context) REFUSE(INVALID_CONTEXT, "a launch in a thread that has no context");
    if (!device.kernels.count(function)) REFUSE(INVALID_HANDLE, "a kernel that does not exist");
    auto kernel = static_cast<Kernel*>(function);
    const char* name = kernel->name.c_str();
    if (!is_stream(stream)) REFUSE(INVALID_HANDLE, "%s on a stream that does not exist", name);
    if (uintptr_t(stream) > 2 && device.streams[stream] != current)
        REFUSE(INVALID_HANDLE, "%s on a stream of another device", name);
    unsigned shape[] = {grid_x, grid_y, grid_z, block_x, block_y, block_z};
    for (int axis = 0; axis < 3; axis++) {
        unsigned blocks = shape[axis], threads = shape[3 + axis];
        if (blocks == 0 || blocks > widest_grid[axis])
            REFUSE(INVALID_VALUE, "%s: a grid of %u blocks on axis %d", name, blocks, axis);
        if (threads == 0 || threads > widest_block[axis])
            REFUSE(INVALID_VALUE, "%s: a block of %u threads on axis %d", name, threads, axis);
    }
    size_t threads = size_t(block_x) * block_y * block_z;
    if (threads > kernel->threads)
        REFUSE(INVALID_VALUE, "%s: %zu threads, and %u at most", name, threads, kernel->threads);
    if (shared > unsigned(kernel->shared))
        REFUSE(INVALID_VALUE, "%s: %u bytes of shared memory, and %d are allowed", name, shared,
               kernel->shared);
    if (extra) REFUSE(NOT_SUPPORTED, "it takes arguments one by one");
    device.counts[LAUNCHES]++;
    if (!device.executes && !recording) return SUCCESS;
    if (device.executes && !kernel->launch) REFUSE(LAUNCH_FAILED, "%s was not compiled", name);
    Touched touched[most_touched];
    if (recording) {
        std::vector<unsigned> full(shape, shape + 6);
        void** kept = kernel->kept ? kernel->kept(arguments) : arguments;
        auto run = [=](const unsigned* grid) -> int {
            auto other = full;
            std::copy(grid, grid + 3, other.begin());
            if (!device.executes) return SUCCESS;
            if (const char* error = kernel->launch(other.data(), shared, kept))
                REFUSE(LAUNCH_FAILED, "%s: %s", kernel->name.c_str(), error);
            return SUCCESS;
        };
        size_t count = kernel->touched ? kernel->touched(arguments, touched) : 0;
        if (int status = keep(name, stream, touched, count, run)) return status;
        Work& work = recording->work.back();
        work.function = function;
        memcpy(work.shape, shape, sizeof shape);
        work.shared = shared;
        work.arguments = kept;
        return SUCCESS;
    }
    size_t count = device.order.kept ? kernel->touched(arguments, touched) : 0;
    switch (turn(lock, name, stream, touched, count)) {
        case FAULT: return LAUNCH_FAILED;
        case SKIP: return SUCCESS;
        case RUN: break;
    }
    if (const char* error = kernel->launch(shape, shared, arguments))
        REFUSE(LAUNCH_FAILED, "%s: %s", name, error);
    return SUCCESS;
}

// What CuPy asks the driver's library for besides, and does not need here.
#define MISSING(function) \
    DRIVER function() { return stand_in_has_no(#function); }
MISSING(cuCtxCreate_v2)
MISSING(cuCtxDestroy_v2)
MISSING(cuCtxGetDevice)
MISSING(cuCtxSetCurrent)
MISSING(cuDevicePrimaryCtxRelease_v2)
MISSING(cuLaunchCooperativeKernel)
MISSING(cuLinkAddData_v2)
MISSING(cuLinkAddFile_v2)
MISSING(cuLinkComplete)
MISSING(cuLinkCreate_v2)
MISSING(cuLinkDestroy)
MISSING(cuModuleGetGlobal_v2)
MISSING(cuModuleLoad)
MISSING(cuOccupancyMaxActiveBlocksPerMultiprocessor)
MISSING(cuOccupancyMaxPotentialBlockSize)
MISSING(cuStreamGetCtx)
