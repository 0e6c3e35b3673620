//! What of the device is open: declared, actual, and what is done about it.

wire! { "PascalCase";
    /// How it stands with the device's interfaces.
    pub struct HostStatus {
        /// `off`, `trial`, `on` or `release` (which goes on where it was not whole).
        pub phase: String,
        /// Milliseconds until the trial ends by itself; 0 where there is none.
        pub trial_left_ms: i64,
        /// Whether host.yaml declares interfaces.
        pub is_declared: bool,
        /// Whether host.yaml is what is enforced.
        pub is_applied: bool,
        /// Whether drift is corrected, or only told.
        pub corrects: bool,
        /// What is wrong with the lockdown itself.
        pub trouble: String,
        /// Everything that is declared, compared.
        pub items: Vec<HostItem>,
        /// What was done, or would be, in order.
        pub steps: Vec<HostStep>,
        /// Names of items that a trial leaves to its confirmation, since it could not undo them.
        pub withheld: Vec<String>,
    }

    /// One interface of the device.
    pub struct HostItem {
        /// `SECTION/NAME`.
        pub name: String,
        /// What is declared.
        pub declared: String,
        /// What is so.
        pub actual: String,
        /// `ok`, `drift` or `unknown`.
        pub verdict: String,
        /// How it is enforced, or why it is not.
        pub how: String,
        /// What stops working where it is.
        pub breaks: String,
        /// By what it is undone: `now`, `restart` or `person`; empty where nothing is turned.
        pub undo: String,
        /// Whether drift is corrected.
        pub corrects: bool,
    }

    /// One thing that is turned.
    pub struct HostStep {
        /// The item that asks for it, or what goes back.
        pub item: String,
        /// What is turned.
        pub what: String,
        /// How it stands.
        pub from: String,
        /// How it will.
        pub to: String,
        /// By what it is undone.
        pub undo: String,
        /// Whether it puts back what stood before Kakoi.
        pub is_return: bool,
        /// Why it failed; empty where it did not, or was not tried.
        pub error: String,
    }
}
