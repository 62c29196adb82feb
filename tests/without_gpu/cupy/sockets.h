// TCP between processes, for the stand-in for NCCL: every wait has an end.

#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

typedef std::chrono::steady_clock::time_point Time;

inline Time now() { return std::chrono::steady_clock::now(); }

// A process is gone, or was never there.
struct Disconnected : std::runtime_error {
    using std::runtime_error::runtime_error;
};
// Nothing came within the time.
struct Late : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// This host's address as others reach it. As NCCL does, by NCCL_SOCKET_IFNAME, the beginnings of
// names of interfaces, or else by the first interface that is not the host's own loop.
inline in_addr own_address() {
    const char* wanted = getenv("NCCL_SOCKET_IFNAME");
    in_addr found = {htonl(INADDR_LOOPBACK)};
    ifaddrs* all = nullptr;
    if (getifaddrs(&all)) return found;
    for (ifaddrs* each = all; each; each = each->ifa_next) {
        if (!each->ifa_addr || each->ifa_addr->sa_family != AF_INET) continue;
        if (!(each->ifa_flags & IFF_UP)) continue;
        if (wanted ? strncmp(each->ifa_name, wanted, strlen(wanted)) != 0
                   : (each->ifa_flags & IFF_LOOPBACK) != 0)
            continue;
        found = reinterpret_cast<sockaddr_in*>(each->ifa_addr)->sin_addr;
        break;
    }
    freeifaddrs(all);
    return found;
}

inline std::string text_of(const sockaddr_in& address) {
    char text[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &address.sin_addr, text, sizeof text);
    return text + std::string(":") + std::to_string(ntohs(address.sin_port));
}

// A socket that does not block, closed when it goes.
class Socket {
  public:
    Socket() = default;
    Socket(Socket&& other) : number(other.number) { other.number = -1; }
    Socket& operator=(Socket&& other) {
        std::swap(number, other.number);
        return *this;
    }
    ~Socket() {
        if (number >= 0) close(number);
    }

    // One that waits for others on a port of its own; its address.
    sockaddr_in listen() {
        sockaddr_in address = {};
        address.sin_family = AF_INET;
        address.sin_addr = own_address();
        socklen_t size = sizeof address;
        number = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (number < 0 || bind(number, reinterpret_cast<sockaddr*>(&address), size) ||
            ::listen(number, 1024) ||
            getsockname(number, reinterpret_cast<sockaddr*>(&address), &size))
            throw std::runtime_error("no port to listen on: " + std::string(strerror(errno)));
        return address;
    }

    Socket accept(Time until) const {
        for (;;) {
            Socket other;
            other.number = accept4(number, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (other.number >= 0) return other.set();
            wait(POLLIN, until);
        }
    }

    static Socket connect(const sockaddr_in& address, Time until) {
        Socket other;
        other.number = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        int error = 0;
        if (::connect(other.number, reinterpret_cast<const sockaddr*>(&address), sizeof address))
            error = errno;
        if (error == EINPROGRESS) {
            other.wait(POLLOUT, until);
            socklen_t size = sizeof error;
            getsockopt(other.number, SOL_SOCKET, SO_ERROR, &error, &size);
        }
        if (error) throw Disconnected(text_of(address) + " is not reached: " + strerror(error));
        return other.set();
    }

    // How many bytes were sent or received, which may be none.
    size_t send_some(const void* data, size_t size) const {
        return checked(::send(number, data, size, MSG_NOSIGNAL), size);
    }
    size_t receive_some(void* data, size_t size) const {
        return checked(::recv(number, data, size, 0), size);
    }

    void send(const void* data, size_t size, Time until) const {
        for (auto place = static_cast<const char*>(data); size;) {
            size_t sent = send_some(place, size);
            place += sent;
            size -= sent;
            if (size) wait(POLLOUT, until);
        }
    }
    void receive(void* data, size_t size, Time until) const {
        for (auto place = static_cast<char*>(data); size;) {
            size_t received = receive_some(place, size);
            place += received;
            size -= received;
            if (size) wait(POLLIN, until);
        }
    }

    int number = -1;

  private:
    Socket set() {
        int yes = 1;
        setsockopt(number, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        return std::move(*this);
    }

    static size_t checked(ssize_t done, size_t wanted) {
        if (done > 0) return done;
        if (done < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
        if (wanted == 0) return 0;
        throw Disconnected("a process is gone");
    }

    void wait(short event, Time until) const {
        pollfd one = {number, event, 0};
        auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - now()).count();
        if (left <= 0 || poll(&one, 1, left) == 0) throw Late("nobody came");
    }
};
