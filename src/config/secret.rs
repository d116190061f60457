//! Values that must not be seen: passwords, tokens, keys.
//!
//! *Invariant*: no `Display`, no `Serialize`, and a `Debug` without content, so that a secret
//! cannot reach a log, a message or a status page by accident.

use std::fmt;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The content, for the one place that has to use it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Whether a key names a secret, so that its value is kept out of every output, whatever the
/// component and even where the key is unknown.
pub fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    [
        "password",
        "passwd",
        "secret",
        "token",
        "credential",
        "passphrase",
    ]
    .iter()
    .any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_of_a_secret_is_not_in_its_debug_text() {
        let secret = Secret::new("swordfish");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret.expose(), "swordfish");
    }

    #[test]
    fn keys_that_name_secrets_are_known_by_their_words() {
        assert!(is_secret_key("keystore-Password"));
        assert!(is_secret_key("kafka.producer.ssl.truststore.password"));
        assert!(!is_secret_key("hdfs.path"));
    }
}
