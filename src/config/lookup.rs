//! `${env:X}` and `${sys:X}` in values.
//!
//! *Invariants*: a lookup that cannot be answered is an error, never an empty or literal text;
//! the answer of a lookup is not looked up again.

use std::collections::BTreeMap;
use std::fmt;

/// The system property, and its value, with which Flume takes `${NAME}` for an environment
/// variable.
const PLAIN_NAMES_KEY: &str = "propertiesImplementation";
const PLAIN_NAMES_CLASS: &str = "org.apache.flume.node.EnvVarResolverProperties";

/// Where `${..}` finds its answers.
#[derive(Clone, Default)]
pub struct Lookups {
    system: BTreeMap<String, String>,
    /// `None`: the environment of the process.
    environment: Option<BTreeMap<String, String>>,
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets; the names are enough.
        f.debug_struct("Lookups")
            .field("system", &self.system.keys())
            .finish_non_exhaustive()
    }
}

impl Lookups {
    /// The environment of the process, and the given system properties (`-Dkey=value`).
    pub fn of_process(system: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            system: system.into_iter().collect(),
            environment: None,
        }
    }

    /// A fixed environment, for tests.
    pub fn fixed(
        system: impl IntoIterator<Item = (String, String)>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        Self {
            system: system.into_iter().collect(),
            environment: Some(environment.into_iter().collect()),
        }
    }

    /// An environment variable.
    pub(super) fn env(&self, name: &str) -> Option<String> {
        match &self.environment {
            Some(fixed) => fixed.get(name).cloned(),
            None => std::env::var(name).ok(),
        }
    }

    /// A system property: given by `-D`, or one of the few that every JVM sets.
    pub fn sys(&self, name: &str) -> Option<String> {
        self.system.get(name).cloned().or_else(|| match name {
            "user.home" => self.env("HOME"),
            "user.name" => self.env("USER"),
            "user.dir" => {
                let directory = std::env::current_dir().ok()?;
                directory.to_str().map(str::to_owned)
            }
            "java.io.tmpdir" => Some("/tmp".to_owned()),
            _ => None,
        })
    }

    /// Replaces the lookups of a value.
    ///
    /// # Errors
    /// A message that names the lookup and says what to do.
    pub fn resolve(&self, value: &str) -> Result<String, String> {
        let mut out = String::with_capacity(value.len());
        let mut rest = value;
        while let Some(start) = rest.find("${") {
            let Some(length) = rest[start..].find('}') else {
                break;
            };
            let inner = &rest[start + 2..start + length];
            if rest[..start].ends_with('$') {
                // `$${x}` is the text `${x}`.
                out.push_str(&rest[..start - 1]);
                out.push_str(&rest[start..=start + length]);
            } else {
                out.push_str(&rest[..start]);
                out.push_str(&self.answer(inner)?);
            }
            rest = &rest[start + length + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn answer(&self, inner: &str) -> Result<String, String> {
        if inner.contains("${") {
            return Err(format!(
                "lookup inside a lookup (${{{inner}..) is not supported"
            ));
        }
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        let (kind, name) = name.split_once(':').unwrap_or(("", name));
        let (answer, unset) = match kind.to_ascii_lowercase().as_str() {
            "env" => (
                self.env(name),
                format!("environment variable {name} is not set"),
            ),
            "sys" => {
                let unset = format!("system property {name} is not set; give -D{name}=VALUE");
                (self.sys(name), unset)
            }
            // Flume's older way: a system property makes plain names environment variables.
            "" if self.sys(PLAIN_NAMES_KEY).as_deref() == Some(PLAIN_NAMES_CLASS) => (
                self.env(name),
                format!("environment variable {name} is not set"),
            ),
            "" => {
                return Err(format!(
                    "lookup ${{{inner}}} is not supported; for an environment variable write \
                     ${{env:{name}}}, or give -D{PLAIN_NAMES_KEY}={PLAIN_NAMES_CLASS}"
                ));
            }
            _ => {
                return Err(format!(
                    "lookup ${{{inner}}} is not supported; only ${{env:NAME}} and ${{sys:NAME}} are"
                ));
            }
        };
        let answer = answer.or_else(|| default.map(str::to_owned)).ok_or(unset)?;
        if answer.contains("${") {
            return Err(format!(
                "the value of ${{{inner}}} holds a lookup itself; not supported"
            ));
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookups() -> Lookups {
        let own = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Lookups::fixed(
            [own("port", "4141")],
            [own("HOME", "/h/u"), own("BAD", "${env:HOME}")],
        )
    }

    #[test]
    fn environment_and_system_properties_are_replaced() {
        let out = lookups().resolve("${env:HOME}/x:${sys:port}:${env:NO:-d}:$${env:HOME}:$5");
        assert_eq!(out.unwrap(), "/h/u/x:4141:d:${env:HOME}:$5");
        assert_eq!(lookups().resolve("${sys:user.home}").unwrap(), "/h/u");
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            lookups().resolve("${sys:user.dir}").unwrap(),
            here.to_str().unwrap()
        );
        assert_eq!(lookups().resolve("a${env:HOME").unwrap(), "a${env:HOME");
    }

    #[test]
    fn a_lookup_without_an_answer_is_refused_with_advice() {
        let message = |value: &str| lookups().resolve(value).unwrap_err();
        assert_eq!(message("${env:NO}"), "environment variable NO is not set");
        assert_eq!(
            message("${sys:no}"),
            "system property no is not set; give -Dno=VALUE"
        );
        assert_eq!(
            message("${date:yyyy}"),
            "lookup ${date:yyyy} is not supported; only ${env:NAME} and ${sys:NAME} are"
        );
        assert_eq!(
            message("${env:BAD}"),
            "the value of ${env:BAD} holds a lookup itself; not supported"
        );
        assert!(message("${env:${sys:port}}").starts_with("lookup inside a lookup"));
    }

    #[test]
    fn plain_names_are_environment_variables_where_flume_is_told_so() {
        let own = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let told = Lookups::fixed([own(PLAIN_NAMES_KEY, PLAIN_NAMES_CLASS)], [own("P", "1")]);
        assert_eq!(told.resolve("${P}").unwrap(), "1");
        assert_eq!(
            told.resolve("${Q}").unwrap_err(),
            "environment variable Q is not set"
        );
        assert_eq!(
            lookups().resolve("${P}").unwrap_err(),
            "lookup ${P} is not supported; for an environment variable write ${env:P}, or give \
             -DpropertiesImplementation=org.apache.flume.node.EnvVarResolverProperties"
        );
    }

    #[test]
    fn names_that_no_environment_can_hold_are_just_not_set() {
        let process = Lookups::of_process([]);
        assert!(process.resolve("${env:}").is_err());
        assert!(process.resolve("${env:a=b}").is_err());
        assert!(process.resolve("${env:a\0b}").is_err());
    }
}
