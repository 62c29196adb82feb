// Stands for NCCL between the processes of a job, each with a stand-in for a GPU: the calls that CuPy
// makes, with NCCL 2.27's ABI. Names, values and the order of arguments are those of nccl.h.
//
// As NCCL does, a call puts a collective on a stream and returns; a thread of the communicator does
// the work when the stream has come to it and all ranks have asked for it. Each rank has a connection
// with each other one. It sends all that is its own, and adds up what it has received, in the order
// of the ranks: sums are the same everywhere, and from run to run.
//
// What hangs with NCCL is an error here, with a sentence: ranks that ask for different things, a
// rank that has gone, one that has not come for TIME_LIMIT seconds. With DEATHS_ARE_SILENT, a rank
// that has gone is only one that does not come: between the cards of one host NCCL does not notice.

#include "machine.h"
#include "numbers.h"
#include "sockets.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <deque>
#include <fstream>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

constexpr char TIME_LIMIT[] = "NPFORMER_EMULATED_NCCL_SECONDS";
constexpr char DEATHS_ARE_SILENT[] = "NPFORMER_EMULATED_NCCL_SILENT";
constexpr int default_time_limit = 300;
constexpr int version = 22707;

enum ncclResult_t : int {
    ncclSuccess = 0,
    ncclUnhandledCudaError = 1,
    ncclSystemError = 2,
    ncclInternalError = 3,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclRemoteError = 6,
};
struct ncclUniqueId {
    char bytes[128];
};

#define NCCL extern "C" __attribute__((visibility("default"))) ncclResult_t

// What went wrong last, for ncclGetErrorString.
static thread_local std::string reason;

__attribute__((format(printf, 2, 3))) static ncclResult_t refuses(ncclResult_t status,
                                                                  const char* format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    reason = text;
    return ncclResult_t(stand_in_refuses(status, "NCCL: %s", text));
}
#define REFUSE(status, ...) return refuses(status, __VA_ARGS__)

static Time time_limit() {
    const char* seconds = getenv(TIME_LIMIT);
    return now() + std::chrono::seconds(seconds ? atoi(seconds) : default_time_limit);
}

// How ranks find each other

// The content of a unique id: where the process that made it listens.
struct Meeting {
    uint64_t key;
    sockaddr_in address;
};
static_assert(sizeof(Meeting) <= sizeof(ncclUniqueId), "");

// What a rank says of itself.
struct Member {
    uint64_t key;
    int size, rank, number;  // of its GPU on its host
    char host[128];
    sockaddr_in address;
};
struct Answer {
    ncclResult_t status;
    char text[240];
};

// A host is told by its name and its boot, or by NCCL_HOSTID.
static void write_host(char (&out)[128]) {
    std::string name = "?", boot;
    if (const char* given = getenv("NCCL_HOSTID")) {
        name = given;
    } else {
        std::ifstream("/proc/sys/kernel/hostname") >> name;
        std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
    }
    snprintf(out, sizeof out, "%s%s", name.c_str(), boot.c_str());
}

// What is wrong with these members, for the one with this rank.
static Answer answer(const std::vector<Member>& members, int rank) {
    Answer out = {ncclSuccess, ""};
    for (auto& a : members)
        for (auto& b : members) {
            if (&b >= &a) break;
            if (a.number != b.number || strcmp(a.host, b.host)) continue;
            bool concerned = rank == a.rank || rank == b.rank;
            out.status = concerned ? ncclInvalidUsage : ncclRemoteError;
            snprintf(out.text, sizeof out.text,
                     "Duplicate GPU detected : rank %d and rank %d both on CUDA device %d000", b.rank,
                     a.rank, a.number + 1);
        }
    return out;
}

// Waits for all ranks, and tells each where the others are.
static void hold(Socket listener, uint64_t key) try {
    std::vector<Member> members;
    std::vector<Socket> sockets;
    Time until = time_limit();
    Answer wrong = {ncclSuccess, ""};
    while (!wrong.status && (members.empty() || members.size() < size_t(members[0].size))) {
        Socket socket = listener.accept(until);
        Member member;
        socket.receive(&member, sizeof member, until);
        if (member.key != key) continue;
        size_t place = 0;
        for (auto& other : members) {
            if (other.size != member.size)
                snprintf(wrong.text, sizeof wrong.text, "rank %d says there are %d ranks, rank %d says %d",
                         other.rank, other.size, member.rank, member.size);
            if (other.rank == member.rank)
                snprintf(wrong.text, sizeof wrong.text, "two processes are rank %d", member.rank);
            if (other.rank < member.rank) place++;
        }
        if (*wrong.text) wrong.status = ncclInternalError;
        members.insert(members.begin() + place, member);
        sockets.insert(sockets.begin() + place, std::move(socket));
    }
    for (size_t i = 0; i < members.size(); i++) {
        Answer each = wrong.status ? wrong : answer(members, members[i].rank);
        sockets[i].send(&each, sizeof each, until);
        if (!each.status) sockets[i].send(members.data(), members.size() * sizeof(Member), until);
    }
} catch (const std::exception&) {
    // Whoever waits for an answer sees the connection end.
}

// Work

enum Kind : int { ALL_REDUCE, REDUCE, BROADCAST, ALL_GATHER, REDUCE_SCATTER, SEND, RECEIVE };
constexpr const char* names_of_kinds[] = {"an all-reduce", "a reduce",         "a broadcast",
                                          "an all-gather", "a reduce-scatter", "a send",
                                          "a receive"};

// What ranks have to agree on.
struct Request {
    Kind kind;
    ncclDataType_t type;
    ncclRedOp_t operation;  // of reductions
    int root;               // or the other rank
    size_t count;           // of each rank

    bool reduces() const { return kind == ALL_REDUCE || kind == REDUCE || kind == REDUCE_SCATTER; }
    bool is_collective() const { return kind != SEND && kind != RECEIVE; }
    bool operator==(const Request& other) const {
        return kind == other.kind && type == other.type && operation == other.operation &&
               root == other.root && count == other.count;
    }
    size_t bytes() const { return count * bytes_of_types[type]; }
    std::string text() const {
        std::string out = std::string(names_of_kinds[kind]) + " of " + std::to_string(count) + " " +
                          names_of_types[type];
        if (reduces()) out += std::string(" (") + names_of_operations[operation] + ")";
        if (kind == REDUCE || kind == BROADCAST) out += " with root " + std::to_string(root);
        return out;
    }
};

struct Operation {
    Request request;
    const char* in;
    char* out;
    void* stream;
};
struct Task {
    std::vector<Operation> operations;
    unsigned long long first = 0;  // of their numbers on the device
};

// A message, or the place for one.
struct Message {
    Request request;
    char* data;
    size_t bytes;
};
struct Mismatch : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct Aborted {};

struct ncclComm {
    int rank = 0, size = 0, device = 0;
    std::vector<Socket> sockets;  // by ranks

    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Task> tasks;
    bool closing = false;
    std::atomic<bool> aborted{false};
    ncclResult_t status = ncclSuccess;
    std::string failure;
    std::thread thread;

    // What this rank sends to another, and expects of it, for one operation.
    Request request_of(const Operation& operation, int other, bool sends) const {
        Request request = operation.request;
        if (request.kind == SEND || request.kind == RECEIVE) {
            request.kind = SEND;
            request.root = sends ? other : rank;
        }
        return request;
    }

    void add_messages(const Operation& operation, int other, std::vector<Message>& out,
                      std::vector<Message>& in, std::vector<std::vector<char>>& memory) const {
        auto& request = operation.request;
        char* data = const_cast<char*>(operation.in);
        size_t bytes = request.bytes(), out_bytes = 0, in_bytes = 0;
        switch (request.kind) {
            case ALL_REDUCE:
            case ALL_GATHER: out_bytes = in_bytes = bytes; break;
            case REDUCE_SCATTER:
                data += other * bytes;
                out_bytes = in_bytes = bytes;
                break;
            case REDUCE:
                out_bytes = other == request.root ? bytes : 0;
                in_bytes = rank == request.root ? bytes : 0;
                break;
            case BROADCAST:
                out_bytes = rank == request.root ? bytes : 0;
                in_bytes = other == request.root ? bytes : 0;
                break;
            case SEND: out_bytes = bytes; break;
            case RECEIVE: in_bytes = bytes; break;
        }
        bool concerned = request.is_collective() || request.root == other;
        if (concerned && request.kind != RECEIVE)
            out.push_back({request_of(operation, other, true), data, out_bytes});
        if (concerned && request.kind != SEND) {
            memory.emplace_back(in_bytes);
            in.push_back({request_of(operation, other, false), memory.back().data(), in_bytes});
        }
    }

    // How far a series of messages has come. The bytes of a request precede those of its data.
    struct Progress {
        size_t message = 0, byte = 0;
        bool moved = false;
    };

    // Moves messages on as far as that goes without waiting; whether any are left. `move` moves some
    // bytes and says how many; `head` is where those of a message's request are; `check` looks at
    // the request when it is whole.
    template <class Move, class Head, class Check>
    static bool advance(std::vector<Message>& messages, Progress& at, Move move, Head head,
                        Check check) {
        constexpr size_t head_bytes = sizeof(Request);
        while (at.message < messages.size()) {
            Message& message = messages[at.message];
            bool in_head = at.byte < head_bytes;
            char* begin = in_head ? reinterpret_cast<char*>(head(message)) : message.data - head_bytes;
            size_t end = in_head ? head_bytes : head_bytes + message.bytes;
            if (at.byte < end) {
                size_t done = move(begin + at.byte, end - at.byte);
                if (done == 0) return true;
                at.byte += done;
                at.moved = true;
            }
            if (in_head && at.byte == head_bytes) check(message);
            if (at.byte == head_bytes + message.bytes) at = {at.message + 1, 0, at.moved};
        }
        return false;
    }

    // Sends and receives messages, to and from all ranks at once.
    void exchange(std::vector<std::vector<Message>>& out, std::vector<std::vector<Message>>& in) {
        std::vector<Progress> sent(size), received(size);
        std::vector<Request> requests(size);
        Time until = time_limit();
        bool silent = getenv(DEATHS_ARE_SILENT);
        for (;;) {
            std::vector<pollfd> waiting;
            int missing = -1;
            bool moved = false;
            for (int other = 0; other < size; other++) {
                if (other == rank) continue;
                Socket& socket = sockets[other];
                pollfd one = {socket.number, 0, 0};
                try {
                    sent[other].moved = received[other].moved = false;
                    if (advance(
                            out[other], sent[other],
                            [&](char* from, size_t bytes) { return socket.send_some(from, bytes); },
                            [](Message& message) { return &message.request; }, [](Message&) {}))
                        one.events |= POLLOUT;
                    if (advance(
                            in[other], received[other],
                            [&](char* to, size_t bytes) { return socket.receive_some(to, bytes); },
                            [&](Message&) { return &requests[other]; },
                            [&](Message& message) { agree(message, requests[other], other); }))
                        one.events |= POLLIN;
                    moved |= sent[other].moved || received[other].moved;
                    if (!one.events) continue;
                } catch (const Disconnected&) {
                    if (!silent) throw Disconnected("rank " + std::to_string(other) + " is gone");
                    one.fd = -1;  // never ready
                }
                waiting.push_back(one);
                missing = other;
            }
            if (aborted) throw Aborted();
            if (waiting.empty()) return;
            if (moved) until = time_limit();
            if (now() > until) throw Late("rank " + std::to_string(missing) + " has not come");
            poll(waiting.data(), waiting.size(), 20);  // an abort is seen after milliseconds
        }
    }

    void agree(const Message& message, const Request& request, int other) const {
        if (request == message.request) return;
        throw Mismatch("rank " + std::to_string(rank) + " asks for " + message.request.text() +
                       ", rank " + std::to_string(other) + " for " + request.text());
    }

    // What is done with the messages of an operation; `from` has one of each rank, but for this.
    void finish(const Operation& operation, std::vector<const void*>& from) const {
        auto& request = operation.request;
        size_t bytes = request.bytes();
        from[rank] = operation.in + (request.kind == REDUCE_SCATTER ? rank * bytes : 0);
        switch (request.kind) {
            case REDUCE:
                if (rank != request.root) break;
                [[fallthrough]];
            case ALL_REDUCE:
            case REDUCE_SCATTER: {
                std::vector<char> result(bytes);  // the arrays may be the same
                reductions[request.type](from.data(), size, request.count, request.operation,
                                         result.data());
                memcpy(operation.out, result.data(), bytes);
                break;
            }
            case ALL_GATHER:
                for (int each = 0; each < size; each++)
                    memmove(operation.out + each * bytes, from[each], bytes);
                break;
            case BROADCAST:
            case RECEIVE: memmove(operation.out, from[request.root], bytes); break;
            case SEND: break;
        }
    }

    void run(const Task& task) {
        if (!stand_in_waits(task.first, task.operations.size()))
            throw Disconnected("it waits for a collective that has failed");
        std::vector<std::vector<Message>> out(size), in(size);
        std::vector<std::vector<char>> memory;
        for (auto& operation : task.operations)
            for (int other = 0; other < size; other++)
                if (other != rank) add_messages(operation, other, out[other], in[other], memory);
        exchange(out, in);
        std::vector<size_t> next(size, 0);
        std::deque<const char*> own;  // sent by this rank to itself
        for (auto& operation : task.operations)
            if (operation.request.kind == SEND && operation.request.root == rank)
                own.push_back(operation.in);
        for (auto& operation : task.operations) {
            auto& request = operation.request;
            if (request.kind == SEND) continue;
            std::vector<const void*> from(size, nullptr);
            for (int other = 0; other < size; other++)
                if (other != rank && (request.is_collective() || request.root == other))
                    from[other] = in[other][next[other]++].data;
            Operation done = operation;
            if (request.kind == RECEIVE && request.root == rank) {
                done.in = own.front();
                own.pop_front();
            }
            finish(done, from);
        }
    }

    // The thread that works.
    void work() {
        for (;;) {
            Task task;
            {
                std::unique_lock<std::mutex> lock(mutex);
                changed.wait(lock, [&] { return !tasks.empty() || closing; });
                if (tasks.empty()) return;
                task = tasks.front();
            }
            std::string text;
            ncclResult_t found = status;
            try {
                if (aborted) throw Aborted();
                if (!found) run(task);
            } catch (const Disconnected& error) {
                found = ncclRemoteError;
                text = error.what();
            } catch (const Late& error) {
                found = ncclSystemError;
                text = error.what();
            } catch (const Mismatch& error) {
                found = ncclInvalidUsage;
                text = error.what();
            } catch (Aborted) {
                found = ncclInternalError;
                text = "the communicator was aborted";
            }
            std::unique_lock<std::mutex> lock(mutex);
            if (found && !status) {
                status = found;
                failure = text;
                if (!aborted) refuses(found, "%s", text.c_str());
                for (auto& socket : sockets) socket = Socket();  // others need not wait
            }
            for (size_t i = 0; i < task.operations.size(); i++)
                stand_in_ends(task.first + i, found ? failure.c_str() : nullptr);
            tasks.pop_front();
            changed.notify_all();
        }
    }

    ~ncclComm() {
        {
            std::lock_guard<std::mutex> lock(mutex);
            closing = true;
            changed.notify_all();
        }
        if (thread.joinable()) thread.join();
        stand_in_closes(this);
    }
};
typedef ncclComm* ncclComm_t;

// Groups

static thread_local int depth = 0;
static thread_local std::vector<std::pair<ncclComm_t, Operation>> group;

// What one rank asks for at once.
static ncclResult_t submit(ncclComm_t comm, Task task) {
    // Whatever the order within a group, ranks send their messages in this one.
    std::stable_partition(task.operations.begin(), task.operations.end(),
                          [](const Operation& one) { return one.request.is_collective(); });
    long own = 0;
    for (auto& operation : task.operations)
        if (!operation.request.is_collective() && operation.request.root == comm->rank)
            own += operation.request.kind == SEND ? 1 : -1;
    if (own) REFUSE(ncclInvalidUsage, "a rank sends to itself what it does not receive in the group");

    static std::mutex& one_at_a_time = *new std::mutex;  // numbers of a group follow each other
    std::lock_guard<std::mutex> all(one_at_a_time);
    std::lock_guard<std::mutex> lock(comm->mutex);
    if (comm->status) {
        reason = comm->failure;
        return comm->status;
    }
    size_t begun = 0;
    for (auto& operation : task.operations) {
        auto& request = operation.request;
        size_t ranks = comm->size, bytes = request.bytes();
        bool at_root = request.root == comm->rank;
        bool reads = request.kind != RECEIVE && (request.kind != BROADCAST || at_root);
        bool writes = request.kind != SEND && (request.kind != REDUCE || at_root);
        Touched touched[] = {
            {operation.in, reads ? bytes * (request.kind == REDUCE_SCATTER ? ranks : 1) : 0, false},
            {operation.out, writes ? bytes * (request.kind == ALL_GATHER ? ranks : 1) : 0, true}};
        auto number = stand_in_begins(comm, names_of_kinds[request.kind], comm->device,
                                      operation.stream, touched + !reads, size_t(reads) + writes);
        if (!number) {
            for (size_t i = 0; i < begun; i++) stand_in_ends(task.first + i, nullptr);
            reason = stand_in_reason();
            return ncclInvalidUsage;
        }
        if (begun++ == 0) task.first = number;
    }
    comm->tasks.push_back(std::move(task));
    comm->changed.notify_all();
    return ncclSuccess;
}

static ncclResult_t ask(ncclComm_t comm, Request request, const void* in, void* out, void* stream) {
    const char* name = names_of_kinds[request.kind];
    if (!comm) REFUSE(ncclInvalidArgument, "%s with no communicator", name);
    if (request.type < 0 || request.type >= ncclNumTypes)
        REFUSE(ncclInvalidArgument, "%s of type %d", name, request.type);
    if (request.operation < 0 || request.operation >= ncclNumOps)
        REFUSE(ncclInvalidArgument, "%s with operation %d", name, request.operation);
    if (request.root < 0 || request.root >= comm->size)
        REFUSE(ncclInvalidArgument, "%s with rank %d of %d", name, request.root, comm->size);
    Operation operation = {request, static_cast<const char*>(in), static_cast<char*>(out), stream};
    if (depth) {
        group.push_back({comm, operation});
        return ncclSuccess;
    }
    return submit(comm, {{operation}});
}

NCCL ncclGroupStart() {
    depth++;
    return ncclSuccess;
}

NCCL ncclGroupEnd() {
    if (!depth) REFUSE(ncclInvalidUsage, "the end of a group that was not begun");
    if (--depth) return ncclSuccess;
    auto asked = std::move(group);
    group.clear();
    while (!asked.empty()) {
        ncclComm_t comm = asked.front().first;
        Task task;
        std::vector<std::pair<ncclComm_t, Operation>> others;
        for (auto& each : asked)
            if (each.first == comm)
                task.operations.push_back(each.second);
            else
                others.push_back(each);
        if (auto status = submit(comm, std::move(task))) return status;
        asked = std::move(others);
    }
    return ncclSuccess;
}

// Communicators

NCCL ncclGetVersion(int* out) {
    *out = version;
    return ncclSuccess;
}

extern "C" __attribute__((visibility("default"))) const char* ncclGetErrorString(
    ncclResult_t status) {
    static thread_local std::string text;
    switch (status) {
        case ncclSuccess: return "no error";
        case ncclUnhandledCudaError: text = "unhandled cuda error"; break;
        case ncclSystemError: text = "unhandled system error"; break;
        case ncclInternalError: text = "internal error"; break;
        case ncclInvalidArgument: text = "invalid argument"; break;
        case ncclInvalidUsage: text = "invalid usage"; break;
        case ncclRemoteError: text = "remote process exited or there was a network error"; break;
        default: return "unknown result code";
    }
    if (!reason.empty()) text += ": " + reason;
    return text.c_str();
}

NCCL ncclGetUniqueId(ncclUniqueId* out) try {
    Socket listener;
    Meeting meeting = {};
    meeting.address = listener.listen();
    std::random_device random;
    meeting.key = uint64_t(random()) << 32 | random();
    *out = {};
    memcpy(out, &meeting, sizeof meeting);
    std::thread(hold, std::move(listener), meeting.key).detach();
    return ncclSuccess;
} catch (const std::exception& error) {
    REFUSE(ncclSystemError, "%s", error.what());
}

static ncclResult_t begin(ncclComm_t* out, int size, const ncclUniqueId& id, int rank, int device) try {
    Meeting meeting;
    memcpy(&meeting, &id, sizeof meeting);
    Time until = time_limit();
    Socket listener;
    Member own = {meeting.key, size, rank, stand_in_number(device), "", listener.listen()};
    write_host(own.host);
    Socket root = Socket::connect(meeting.address, until);
    root.send(&own, sizeof own, until);
    Answer answer;
    root.receive(&answer, sizeof answer, until);
    if (answer.status) REFUSE(answer.status, "%s", answer.text);
    std::vector<Member> members(size);
    root.receive(members.data(), size * sizeof(Member), until);

    auto comm = std::make_unique<ncclComm>();
    comm->rank = rank;
    comm->size = size;
    comm->device = device;
    comm->sockets.resize(size);
    for (int lower = 0; lower < rank; lower++) {
        comm->sockets[lower] = Socket::connect(members[lower].address, until);
        comm->sockets[lower].send(&own, sizeof own, until);
    }
    for (int higher = rank + 1; higher < size; higher++) {
        Socket socket = listener.accept(until);
        Member other;
        socket.receive(&other, sizeof other, until);
        if (other.key != meeting.key || other.rank <= rank || other.rank >= size)
            REFUSE(ncclInternalError, "a stranger knocked");
        comm->sockets[other.rank] = std::move(socket);
    }
    stand_in_keeps_order();
    comm->thread = std::thread(&ncclComm::work, comm.get());
    *out = comm.release();
    return ncclSuccess;
} catch (const Disconnected& error) {
    REFUSE(ncclRemoteError, "%s", error.what());
} catch (const Late& error) {
    REFUSE(ncclSystemError, "not all of %d ranks came", size);
} catch (const std::exception& error) {
    REFUSE(ncclSystemError, "%s", error.what());
}

NCCL ncclCommInitRankConfig(ncclComm_t* out, int size, ncclUniqueId id, int rank, const void*) {
    if (size < 1 || rank < 0 || rank >= size)
        REFUSE(ncclInvalidArgument, "rank %d of %d", rank, size);
    if (depth) REFUSE(ncclInvalidUsage, "a communicator that begins in a group is not emulated");
    return begin(out, size, id, rank, stand_in_device());
}

NCCL ncclCommInitRank(ncclComm_t* out, int size, ncclUniqueId id, int rank) {
    return ncclCommInitRankConfig(out, size, id, rank, nullptr);
}

// One process with all the ranks.
NCCL ncclCommInitAll(ncclComm_t* out, int size, const int* devices) {
    ncclUniqueId id;
    if (auto status = ncclGetUniqueId(&id)) return status;
    std::vector<ncclResult_t> statuses(size);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; rank++)
        threads.emplace_back([&, rank] {
            statuses[rank] = begin(out + rank, size, id, rank, devices ? devices[rank] : rank);
        });
    for (auto& thread : threads) thread.join();
    for (auto status : statuses)
        if (status) REFUSE(status, "not all of %d ranks came", size);
    return ncclSuccess;
}

NCCL ncclCommSplit(ncclComm_t, int, int, ncclComm_t*, const void*) {
    REFUSE(ncclInvalidUsage, "it has no ncclCommSplit");
}

// Waits for what was asked for.
NCCL ncclCommDestroy(ncclComm_t comm) {
    delete comm;
    return ncclSuccess;
}

NCCL ncclCommAbort(ncclComm_t comm) {
    if (comm) comm->aborted = true;
    return ncclCommDestroy(comm);
}

NCCL ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* out) {
    if (!comm) REFUSE(ncclInvalidArgument, "no communicator");
    std::lock_guard<std::mutex> lock(comm->mutex);
    *out = comm->status;
    reason = comm->failure;
    return ncclSuccess;
}

NCCL ncclCommCount(const ncclComm_t comm, int* out) {
    if (!comm) REFUSE(ncclInvalidArgument, "no communicator");
    *out = comm->size;
    return ncclSuccess;
}

NCCL ncclCommUserRank(const ncclComm_t comm, int* out) {
    if (!comm) REFUSE(ncclInvalidArgument, "no communicator");
    *out = comm->rank;
    return ncclSuccess;
}

NCCL ncclCommCuDevice(const ncclComm_t comm, int* out) {
    if (!comm) REFUSE(ncclInvalidArgument, "no communicator");
    *out = comm->device;
    return ncclSuccess;
}

NCCL ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type,
                   ncclRedOp_t operation, ncclComm_t comm, void* stream) {
    return ask(comm, {ALL_REDUCE, type, operation, 0, count}, in, out, stream);
}

NCCL ncclReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                int root, ncclComm_t comm, void* stream) {
    return ask(comm, {REDUCE, type, operation, root, count}, in, out, stream);
}

NCCL ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root,
                   ncclComm_t comm, void* stream) {
    return ask(comm, {BROADCAST, type, ncclSum, root, count}, in, out, stream);
}

NCCL ncclBcast(void* array, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
               void* stream) {
    return ncclBroadcast(array, array, count, type, root, comm, stream);
}

NCCL ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm,
                   void* stream) {
    return ask(comm, {ALL_GATHER, type, ncclSum, 0, count}, in, out, stream);
}

NCCL ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t type,
                       ncclRedOp_t operation, ncclComm_t comm, void* stream) {
    return ask(comm, {REDUCE_SCATTER, type, operation, 0, count}, in, out, stream);
}

NCCL ncclSend(const void* in, size_t count, ncclDataType_t type, int other, ncclComm_t comm,
              void* stream) {
    return ask(comm, {SEND, type, ncclSum, other, count}, in, nullptr, stream);
}

NCCL ncclRecv(void* out, size_t count, ncclDataType_t type, int other, ncclComm_t comm,
              void* stream) {
    return ask(comm, {RECEIVE, type, ncclSum, other, count}, nullptr, out, stream);
}
