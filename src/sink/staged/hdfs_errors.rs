//! What an error of hdfs-native allows the publisher to conclude.
//!
//! Place in the flow: [`super::store_hdfs`] sorts every error here and nowhere else. The rule: only
//! what is *proven* not to have happened may be called so; an error that this file does not know
//! is [`StoreError::Unknown`], and the publisher asks again.
//!
//! The proofs. An `RPCError` is an answer of a NameNode that has thrown before it changed
//! anything; a write is tried on another NameNode only when it was proven not to be sent. A
//! connection that was refused never carried the call. All else (time-outs, a connection lost with
//! the call in flight, an answer that cannot be decoded, an exception class we have not met, such
//! as a router's over a lost downstream connection) proves nothing. Tried with hdfs-native 0.14.8
//! on HDFS 3.4.1; `tests/stores.rs` repeats it.

use std::io::{Error as IoError, ErrorKind};

use hdfs_native::HdfsError;

use super::store::StoreError;

/// The call whose error is sorted: the same exception means different things in different calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Mkdirs,
    Create,
    Rename,
    Delete,
    Stat,
    List,
    Read,
    Write,
    Close,
}

impl Op {
    /// Whether the call only looks.
    fn is_read(self) -> bool {
        matches!(self, Self::Stat | Self::List | Self::Read)
    }

    /// Whether the call also talks to DataNodes and sends several requests, so that a refusal of
    /// one says nothing about the others.
    fn is_data(self) -> bool {
        matches!(self, Self::Write | Self::Close)
    }
}

/// Sorts `error` of the call described by `what`.
pub(super) fn sort(op: Op, what: &str, error: &HdfsError) -> StoreError {
    let text = format!("{what}: {}", first_line(&error.to_string()));
    match error {
        HdfsError::RPCError(class, message) | HdfsError::FatalRPCError(class, message) => {
            sort_exception(op, class, first_line(message), text)
        }
        HdfsError::IOError(error) => sort_io(op, error, text),
        // FileAlreadyExistsException and AlreadyBeingCreatedException. In create, rename and
        // mkdirs all of them say that the name is taken: a closed file, somebody's open file, our
        // own open file, or source and target being one.
        HdfsError::AlreadyExists(_) if op.is_data() => StoreError::NotFound(text),
        HdfsError::AlreadyExists(_) => StoreError::AlreadyExists(text),
        HdfsError::FileNotFound(_) => StoreError::NotFound(text),
        HdfsError::InvalidPath(_)
        | HdfsError::InvalidArgument(_)
        | HdfsError::UrlParseError(_)
        | HdfsError::UnsupportedFeature(_)
        | HdfsError::UnsupportedErasureCodingPolicy(_)
        | HdfsError::IsADirectoryError(_)
        | HdfsError::XmlParseError(_)
        | HdfsError::NoSASLMechanism => StoreError::Refused(text),
        // The handshake comes before the call, and a KDC comes back.
        HdfsError::SASLError(_) | HdfsError::GSSAPIError(..) if !op.is_data() => {
            StoreError::Unavailable(text)
        }
        HdfsError::BlocksNotFound(_) | HdfsError::ChecksumError if op.is_read() => {
            StoreError::Unavailable(text)
        }
        _ => StoreError::Unknown(text),
    }
}

/// Messages carry the Java stack behind the first line.
fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or("")
}

fn sort_exception(op: Op, class: &str, message: &str, text: String) -> StoreError {
    let name = class.rsplit('.').next().unwrap_or(class);
    match name {
        "FileNotFoundException" => sort_not_found(op, message, text),
        // The lease was taken over, or the file deleted or recovered under its writer.
        "LeaseExpiredException" => StoreError::NotFound(text),
        "PathIsNotEmptyDirectoryException" => StoreError::NotEmpty(text),
        "FileAlreadyExistsException" | "AlreadyBeingCreatedException" => {
            StoreError::AlreadyExists(text)
        }
        "RecoveryInProgressException" if op == Op::Create => StoreError::AlreadyExists(text),
        "StandbyException"
        | "ObserverRetryOnActiveException"
        | "RetriableException"
        | "SafeModeException"
        | "NotReplicatedYetException"
        | "RecoveryInProgressException" => StoreError::Unavailable(text),
        "AccessControlException"
        | "AuthorizationException"
        | "SecretManager$InvalidToken"
        | "QuotaExceededException"
        | "NSQuotaExceededException"
        | "DSQuotaExceededException"
        | "QuotaByStorageTypeExceededException"
        | "InvalidPathException"
        | "IllegalArgumentException"
        | "HadoopIllegalArgumentException"
        | "ParentNotDirectoryException"
        | "UnresolvedPathException"
        | "UnresolvedLinkException"
        | "FSLimitException$PathComponentTooLongException"
        | "FSLimitException$MaxDirectoryItemsExceededException"
        | "SnapshotAccessControlException"
        | "SnapshotException"
        | "NoSuchMethodException"
        | "RpcNoSuchMethodException"
        | "RpcNoSuchProtocolException" => StoreError::Refused(text),
        // A plain IOException is known by its words only.
        "IOException" if message.contains("could only be written to") => {
            StoreError::Unavailable(text)
        }
        // A file renamed onto a directory or the other way round: checked before `overwrite`.
        "IOException"
            if op == Op::Rename
                && message.starts_with("Source ")
                && message.ends_with("must both be directories") =>
        {
            StoreError::AlreadyExists(text)
        }
        "IOException" if refused_io_exception(op, message) => StoreError::Refused(text),
        _ => StoreError::Unknown(text),
    }
}

/// Which of source and parent was missing stands only in the words, and paths hold words that come
/// from the network: only the beginning of a message counts.
fn sort_not_found(op: Op, message: &str, text: String) -> StoreError {
    match op {
        Op::Mkdirs | Op::Create => StoreError::ParentNotFound(text),
        Op::Rename if message.starts_with("rename source") => StoreError::NotFound(text),
        Op::Rename if message.starts_with("rename destination parent") => {
            StoreError::ParentNotFound(text)
        }
        Op::Rename => StoreError::Unknown(text),
        Op::Read if message.starts_with("Path is not a file") => StoreError::Refused(text),
        _ => StoreError::NotFound(text),
    }
}

fn refused_io_exception(op: Op, message: &str) -> bool {
    op == Op::Rename
        && (message.starts_with("rename source cannot be")
            || message.starts_with("rename destination cannot be")
            || message.starts_with("Rename destination ")
            || message.contains("can't be moved"))
}

fn sort_io(op: Op, error: &IoError, text: String) -> StoreError {
    let never_sent = match error.kind() {
        ErrorKind::ConnectionRefused
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::AddrNotAvailable
        | ErrorKind::NotConnected => true,
        // The resolver's errors have no kind of their own.
        _ => error
            .to_string()
            .starts_with("failed to lookup address information"),
    };
    if never_sent && !op.is_data() {
        StoreError::Unavailable(text)
    } else {
        StoreError::Unknown(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(class: &str, message: &str) -> HdfsError {
        HdfsError::RPCError(class.to_owned(), format!("{message}\n\tat some.java.Frame"))
    }

    fn kind(op: Op, error: HdfsError) -> &'static str {
        match sort(op, "x", &error) {
            StoreError::NotFound(_) => "not found",
            StoreError::ParentNotFound(_) => "parent not found",
            StoreError::AlreadyExists(_) => "exists",
            StoreError::NotEmpty(_) => "not empty",
            StoreError::Unknown(_) => "unknown",
            StoreError::Unavailable(_) => "unavailable",
            StoreError::Refused(_) => "refused",
        }
    }

    #[test]
    fn a_missing_source_is_told_from_a_missing_parent_whatever_the_paths_say() {
        let class = "java.io.FileNotFoundException";
        let source = "rename source /rename destination parent /x is not found.";
        let parent = "rename destination parent /rename source /x not found.";
        assert_eq!(kind(Op::Rename, rpc(class, source)), "not found");
        assert_eq!(kind(Op::Rename, rpc(class, parent)), "parent not found");
        assert_eq!(kind(Op::Rename, rpc(class, "something new")), "unknown");
        assert_eq!(
            kind(Op::Create, rpc(class, "Parent directory doesn't exist")),
            "parent not found"
        );
    }

    #[test]
    fn an_exception_nobody_has_met_proves_nothing() {
        assert_eq!(
            kind(Op::Rename, rpc("java.io.IOException", "downstream lost")),
            "unknown"
        );
        assert_eq!(kind(Op::Delete, rpc("java.io.EOFException", "")), "unknown");
        let invented = "org.apache.hadoop.hdfs.server.federation.NewException";
        assert_eq!(kind(Op::Rename, rpc(invented, "Standby")), "unknown");
    }

    #[test]
    fn what_was_never_sent_is_unavailable_and_what_was_cut_off_is_unknown() {
        let io = |kind: ErrorKind| HdfsError::IOError(IoError::from(kind));
        assert_eq!(
            kind(Op::Rename, io(ErrorKind::ConnectionRefused)),
            "unavailable"
        );
        assert_eq!(
            kind(Op::Rename, io(ErrorKind::ConnectionAborted)),
            "unknown"
        );
        assert_eq!(kind(Op::Rename, io(ErrorKind::ConnectionReset)), "unknown");
        assert_eq!(kind(Op::Rename, io(ErrorKind::TimedOut)), "unknown");
        // A DataNode may refuse after the NameNode has added the block.
        assert_eq!(kind(Op::Write, io(ErrorKind::ConnectionRefused)), "unknown");
    }

    #[test]
    fn standby_safe_mode_and_retriable_are_not_now_and_quota_is_refused() {
        for class in [
            "org.apache.hadoop.ipc.StandbyException",
            "org.apache.hadoop.hdfs.server.namenode.SafeModeException",
            "org.apache.hadoop.ipc.RetriableException",
        ] {
            assert_eq!(kind(Op::Rename, rpc(class, "")), "unavailable", "{class}");
        }
        for class in [
            "org.apache.hadoop.security.AccessControlException",
            "org.apache.hadoop.hdfs.protocol.NSQuotaExceededException",
        ] {
            assert_eq!(kind(Op::Create, rpc(class, "")), "refused", "{class}");
        }
    }
}
