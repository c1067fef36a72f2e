/* Preloaded into a process: notes every name that it looks up and every address beyond this machine that it
   calls, and refuses both. It sees what C++ libraries do, which Python's audit hooks do not. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void note(const char *call, const char *whom) {
    const char *path = getenv("CONNECTIONS_FILE");
    int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (file >= 0) {
        dprintf(file, "%s %s\n", call, whom);
        close(file);
    }
}

static int is_here(const char *name) {
    return name == NULL || strcmp(name, "localhost") == 0 || strncmp(name, "127.", 4) == 0 || strcmp(name, "::1") == 0;
}

static int refused(const char *call, const struct sockaddr *address) {
    char text[INET6_ADDRSTRLEN] = "?";
    if (address == NULL || (address->sa_family != AF_INET && address->sa_family != AF_INET6))
        return 0;
    if (address->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, text, sizeof text);
    else
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, text, sizeof text);
    if (is_here(text))
        return 0;
    note(call, text);
    errno = ENETUNREACH;
    return 1;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    if (is_here(name))
        return real(name, service, hints, found);
    note("getaddrinfo", name);
    return EAI_FAIL;
}

struct hostent *gethostbyname(const char *name) {
    struct hostent *(*real)(const char *) = dlsym(RTLD_NEXT, "gethostbyname");
    if (is_here(name))
        return real(name);
    note("gethostbyname", name);
    return NULL;
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    return refused("connect", address) ? -1 : real(socket, address, length);
}

ssize_t sendto(int socket, const void *bytes, size_t n, int flags, const struct sockaddr *address, socklen_t length) {
    ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "sendto");
    return refused("sendto", address) ? -1 : real(socket, bytes, n, flags, address, length);
}

ssize_t sendmsg(int socket, const struct msghdr *message, int flags) {
    ssize_t (*real)(int, const struct msghdr *, int) = dlsym(RTLD_NEXT, "sendmsg");
    return refused("sendmsg", message ? message->msg_name : NULL) ? -1 : real(socket, message, flags);
}
