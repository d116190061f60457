//! Bugs on purpose: what our tests have to catch.
//!
//! *Place in the flow*: nowhere, in everything that ships. With the feature `planted` the
//! environment variable `FOREBAY_PLANTED` names one bug of one of the lists, and the code that
//! asks [`planted`] for it breaks its promise there; without the feature the answer is a constant
//! `false` and the optimiser removes the question. `tests/long/planted-bugs.sh` runs the suite
//! against every one.

/// Makes a list of bugs: `enum Bug`, `Bug::ALL`, and the question `planted`. One line each: its
/// name in code, its name on the command line, and what it does.
#[doc(hidden)]
#[macro_export]
macro_rules! planted_bugs {
    ($($bug:ident $name:literal $what:literal,)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $(#[doc = $what] $bug,)*
        }

        #[cfg(feature = "planted")]
        impl Bug {
            /// Every one, with its name for `FOREBAY_PLANTED` and what it does.
            pub const ALL: &[(Self, &str, &str)] = &[$((Self::$bug, $name, $what),)*];
        }

        /// Whether this build holds planted bugs and `bug` is the one that was asked for.
        #[cfg(feature = "planted")]
        pub fn planted(bug: Bug) -> bool {
            static CHOSEN: ::std::sync::OnceLock<Option<Bug>> = ::std::sync::OnceLock::new();
            let chosen = CHOSEN.get_or_init(|| {
                let name = ::std::env::var("FOREBAY_PLANTED").ok()?;
                let found = Bug::ALL.iter().find(|(_, n, _)| *n == name);
                found.map(|(bug, ..)| *bug)
            });
            *chosen == Some(bug)
        }

        /// This build holds no planted bug.
        #[cfg(not(feature = "planted"))]
        #[inline(always)]
        pub const fn planted(_bug: Bug) -> bool {
            false
        }
    };
}

planted_bugs! {
    NoSalt "no-salt" "A header's sum leaves the salt of its segment out.",
    NoPlace "no-place" "A header's sum leaves its place in the log out.",
    NoHeaderSum "no-header-sum" "A header is believed whatever its sum.",
    NoBodySum "no-body-sum" "A body is believed whatever its sum.",
    NoLengthCheck "no-length-check" "A body may be longer than the room behind its header.",
    NoWatermark "no-watermark" "The scan proves nothing by the watermarks of good frames.",
    WatermarkInclusive "watermark-inclusive"
        "A bad frame that begins at the proven end counts as proven: torn reported as rot.",
    NoScout "no-scout"
        "Nothing behind a bad frame is looked at for its proof: rot reported as torn.",
    NoResume "no-resume" "The scan ends at the first damage.",
    NoBlankCheck "zeros-are-the-end"
        "Zeros below the proven end count as the end: lost bytes are silent.",
}
