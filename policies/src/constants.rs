//! Kernel constants that a condition or an error number may name.
//!
//! Owns the names that are the same on x86_64 and aarch64, so that a policy means the same on both. Source: the kernel's uapi headers.

/// Values for argument conditions.
#[rustfmt::skip]
pub(crate) const ARGUMENTS: &[(&str, u64)] = &[
    ("AF_UNSPEC", 0), ("AF_UNIX", 1), ("AF_INET", 2), ("AF_AX25", 3), ("AF_IPX", 4), ("AF_APPLETALK", 5), ("AF_NETROM", 6),
    ("AF_BRIDGE", 7), ("AF_ATMPVC", 8), ("AF_X25", 9), ("AF_INET6", 10), ("AF_ROSE", 11), ("AF_DECNET", 12), ("AF_NETBEUI", 13),
    ("AF_SECURITY", 14), ("AF_KEY", 15), ("AF_NETLINK", 16), ("AF_PACKET", 17), ("AF_ASH", 18), ("AF_ECONET", 19),
    ("AF_ATMSVC", 20), ("AF_RDS", 21), ("AF_SNA", 22), ("AF_IRDA", 23), ("AF_PPPOX", 24), ("AF_WANPIPE", 25), ("AF_LLC", 26),
    ("AF_IB", 27), ("AF_MPLS", 28), ("AF_CAN", 29), ("AF_TIPC", 30), ("AF_BLUETOOTH", 31), ("AF_IUCV", 32), ("AF_RXRPC", 33),
    ("AF_ISDN", 34), ("AF_PHONET", 35), ("AF_IEEE802154", 36), ("AF_CAIF", 37), ("AF_ALG", 38), ("AF_NFC", 39), ("AF_VSOCK", 40),
    ("AF_KCM", 41), ("AF_QIPCRTR", 42), ("AF_SMC", 43), ("AF_XDP", 44), ("AF_MCTP", 45),
    ("SOCK_STREAM", 1), ("SOCK_DGRAM", 2), ("SOCK_RAW", 3), ("SOCK_RDM", 4), ("SOCK_SEQPACKET", 5), ("SOCK_DCCP", 6),
    ("SOCK_PACKET", 10), ("SOCK_TYPE_MASK", 0xf), ("SOCK_NONBLOCK", 0x800), ("SOCK_CLOEXEC", 0x8_0000),
    ("IPPROTO_IP", 0), ("IPPROTO_ICMP", 1), ("IPPROTO_TCP", 6), ("IPPROTO_UDP", 17), ("IPPROTO_DCCP", 33),
    ("IPPROTO_ICMPV6", 58), ("IPPROTO_SCTP", 132), ("IPPROTO_UDPLITE", 136), ("IPPROTO_RAW", 255), ("IPPROTO_SMC", 256),
    ("IPPROTO_MPTCP", 262),
    ("NETLINK_ROUTE", 0), ("NETLINK_SOCK_DIAG", 4), ("NETLINK_NFLOG", 5), ("NETLINK_XFRM", 6), ("NETLINK_AUDIT", 9),
    ("NETLINK_NETFILTER", 12), ("NETLINK_KOBJECT_UEVENT", 15), ("NETLINK_GENERIC", 16), ("NETLINK_CRYPTO", 21),
    ("MSG_OOB", 1), ("MSG_FASTOPEN", 0x2000_0000), ("MSG_ZEROCOPY", 0x400_0000),
    ("SOL_SOCKET", 1), ("SOL_TCP", 6), ("SOL_UDP", 17), ("SOL_ALG", 279), ("TCP_ULP", 31), ("TCP_FASTOPEN", 23),
    ("TCP_FASTOPEN_CONNECT", 30), ("TCP_REPAIR", 19), ("SO_BINDTODEVICE", 25),
    ("CLONE_NEWTIME", 0x80), ("CLONE_VM", 0x100), ("CLONE_THREAD", 0x1_0000), ("CLONE_NEWNS", 0x2_0000),
    ("CLONE_NEWCGROUP", 0x200_0000), ("CLONE_NEWUTS", 0x400_0000), ("CLONE_NEWIPC", 0x800_0000),
    ("CLONE_NEWUSER", 0x1000_0000), ("CLONE_NEWPID", 0x2000_0000), ("CLONE_NEWNET", 0x4000_0000),
    ("CLONE_NEW_MASK", 0x7e02_0080),
    ("S_IFMT", 0o170_000), ("S_IFSOCK", 0o140_000), ("S_IFREG", 0o100_000), ("S_IFBLK", 0o060_000), ("S_IFDIR", 0o040_000),
    ("S_IFCHR", 0o020_000), ("S_IFIFO", 0o010_000), ("S_ISUID", 0o4000), ("S_ISGID", 0o2000),
    ("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541c), ("TIOCCONS", 0x541d), ("TIOCSETD", 0x5423), ("TIOCGPTPEER", 0x5441),
    ("FIONREAD", 0x541b), ("FIONBIO", 0x5421), ("TCGETS", 0x5401), ("TIOCGWINSZ", 0x5413),
    ("FS_IOC_SETFLAGS", 0x4008_6602), ("FICLONE", 0x4004_9409), ("FIBMAP", 1), ("FIFREEZE", 0xc004_5877),
    ("PR_SET_DUMPABLE", 4), ("PR_SET_KEEPCAPS", 8), ("PR_SET_NAME", 15), ("PR_CAPBSET_READ", 23), ("PR_CAPBSET_DROP", 24),
    ("PR_SET_SECUREBITS", 28), ("PR_SET_MM", 35), ("PR_SET_NO_NEW_PRIVS", 38), ("PR_CAP_AMBIENT", 47),
    ("PER_LINUX", 0), ("PER_LINUX32", 8), ("UNAME26", 0x2_0000), ("ADDR_NO_RANDOMIZE", 0x4_0000),
    ("READ_IMPLIES_EXEC", 0x40_0000), ("PERSONALITY_QUERY", 0xffff_ffff),
    ("PROT_READ", 1), ("PROT_WRITE", 2), ("PROT_EXEC", 4), ("MAP_SHARED", 1), ("MAP_ANONYMOUS", 0x20),
    ("F_SETPIPE_SZ", 1031), ("F_NOTIFY", 1026), ("SECCOMP_SET_MODE_FILTER", 1),
    ("MADV_HWPOISON", 100), ("MADV_SOFT_OFFLINE", 101),
    ("SCHED_FIFO", 1), ("SCHED_RR", 2), ("SCHED_DEADLINE", 6),
];

/// Error numbers a refusal may give; the asm-generic numbers, which both architectures use.
#[rustfmt::skip]
pub(crate) const ERRNOS: &[(&str, u16)] = &[
    ("EPERM", 1), ("ENOENT", 2), ("ESRCH", 3), ("EINTR", 4), ("EIO", 5), ("ENXIO", 6), ("E2BIG", 7), ("ENOEXEC", 8), ("EBADF", 9),
    ("ECHILD", 10), ("EAGAIN", 11), ("ENOMEM", 12), ("EACCES", 13), ("EFAULT", 14), ("ENOTBLK", 15), ("EBUSY", 16), ("EEXIST", 17),
    ("EXDEV", 18), ("ENODEV", 19), ("ENOTDIR", 20), ("EISDIR", 21), ("EINVAL", 22), ("ENFILE", 23), ("EMFILE", 24), ("ENOTTY", 25),
    ("EFBIG", 27), ("ENOSPC", 28), ("ESPIPE", 29), ("EROFS", 30), ("EMLINK", 31), ("EPIPE", 32), ("EDOM", 33), ("ERANGE", 34),
    ("EDEADLK", 35), ("ENAMETOOLONG", 36), ("ENOLCK", 37), ("ENOSYS", 38), ("ENOTEMPTY", 39), ("ELOOP", 40), ("ENODATA", 61),
    ("ENOTSOCK", 88), ("EPROTONOSUPPORT", 93), ("ESOCKTNOSUPPORT", 94), ("EOPNOTSUPP", 95), ("EPFNOSUPPORT", 96),
    ("EAFNOSUPPORT", 97), ("EADDRINUSE", 98), ("EADDRNOTAVAIL", 99), ("ENETDOWN", 100), ("ENETUNREACH", 101),
    ("ECONNABORTED", 103), ("ETIMEDOUT", 110), ("ECONNREFUSED", 111), ("EHOSTUNREACH", 113),
];

pub(crate) const EPERM: u16 = 1;
pub(crate) const ENOSYS: u16 = 38;

/// The value of a named constant.
pub(crate) fn argument(name: &str) -> Option<u64> {
    ARGUMENTS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| *value)
}

/// The number of a named error.
pub(crate) fn errno(name: &str) -> Option<u16> {
    ERRNOS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| *value)
}

/// The name of an error number, or the number itself.
pub(crate) fn errno_name(number: u16) -> String {
    ERRNOS
        .iter()
        .find(|(_, n)| *n == number)
        .map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}
