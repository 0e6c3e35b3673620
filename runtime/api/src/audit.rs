//! The audit log.

wire! { "PascalCase";
    /// The answer of `GET /kakoi/v1/audit/verify`.
    pub struct AuditVerdict {
        /// Whether every entry is what was written, and none is missing between the first and the last.
        pub is_whole: bool,
        /// What is wrong where it is not; empty otherwise.
        pub fault: String,
        /// The number of the first entry that is kept.
        pub first: i64,
        /// The number of the last entry up to which the log hangs together.
        pub last: i64,
        /// `NUMBER:CHAIN` of that entry: kept elsewhere, it shows later that nothing was cut off or made anew.
        pub head: String,
    }
}
