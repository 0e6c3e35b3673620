//! Further processes in a running container.

use crate::Words;

wire! { "PascalCase";
    /// The body of `POST /containers/{id}/exec`.
    pub struct ExecBody {
        /// `user[:group]`; empty means the container's.
        pub user: String,
        /// Whether it runs with more privileges: never granted beyond the container's confinement.
        pub privileged: bool,
        /// Whether there is a terminal.
        pub tty: bool,
        /// Rows and columns of the terminal.
        pub console_size: Option<[u16; 2]>,
        /// Whether standard input is attached.
        pub attach_stdin: bool,
        /// Whether standard error is attached.
        pub attach_stderr: bool,
        /// Whether standard output is attached.
        pub attach_stdout: bool,
        /// Whether nothing is attached.
        pub detach: bool,
        /// Keys that detach (`ctrl-p,ctrl-q`).
        pub detach_keys: String,
        /// `NAME=value`, added to the container's.
        pub env: Vec<String>,
        /// Working directory; empty means the container's.
        pub working_dir: String,
        /// Program and arguments.
        pub cmd: Option<Words>,
    }

    /// The answer to creating an exec instance.
    pub struct ExecAnswer {
        /// Its id.
        pub id: String,
    }

    /// The body of `POST /exec/{id}/start`.
    pub struct ExecStartBody {
        /// Whether the answer comes as soon as the process runs, without streams.
        pub detach: bool,
        /// Whether there is a terminal; must agree with the instance.
        pub tty: bool,
        /// Rows and columns of the terminal.
        pub console_size: Option<[u16; 2]>,
    }

    /// Everything about one exec instance.
    pub struct ExecInspect {
        /// Id.
        #[serde(rename = "ID")]
        pub id: String,
        /// Whether it runs.
        pub running: bool,
        /// Exit code; `null` while there is none.
        pub exit_code: Option<i64>,
        /// What it runs.
        pub process_config: ExecProcess,
        /// Whether standard input is attached.
        pub open_stdin: bool,
        /// Whether standard error is attached.
        pub open_stderr: bool,
        /// Whether standard output is attached.
        pub open_stdout: bool,
        /// Whether it can be removed.
        pub can_remove: bool,
        /// Id of the container.
        #[serde(rename = "ContainerID")]
        pub container_id: String,
        /// Keys that detach.
        pub detach_keys: String,
        /// Process id on the host; 0 when it does not run.
        pub pid: i64,
    }
}

wire! { "camelCase";
    /// What an exec instance runs.
    pub struct ExecProcess {
        /// Whether there is a terminal.
        pub tty: bool,
        /// Program.
        pub entrypoint: String,
        /// Arguments.
        pub arguments: Vec<String>,
        /// Whether more privileges were asked for.
        pub privileged: bool,
        /// User.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub user: String,
    }
}
