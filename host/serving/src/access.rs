//! Authentication and authorization: bearer tokens, and the feature services that each one permits.
//!
//! Lookups and writes require an [`Authorization`], which only an [`Authenticator`] creates, so no protocol can omit
//! the check. The authenticator stores only the SHA-256 digest of a token. It compares digests in constant time, so the
//! duration of a check reveals neither a token's length nor a correct prefix.

use std::{
    fmt, io, iter,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use larder_common::files::read_regular;
use larder_model::yaml::Located;

use super::{RequestError, Selection};

/// The setting `server: auth`: the accepted tokens, at least one.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The tokens. Several can be valid at a time, so that clients can switch from one token to another.
    pub tokens: Vec<TokenConfig>,
}

/// The configuration of one token.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// The name of the token, for messages. The name is not secret.
    pub name: Located<String>,
    /// The file that contains the token and nothing else.
    pub file: Located<PathBuf>,
    /// The feature services that the token permits; `None` if the token permits everything.
    pub services: Option<Vec<Located<String>>>,
}

/// What a token permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// Lookups of the feature services with these names, and nothing else.
    Services(Box<[Box<str>]>),
}

/// A token. Only its digest is stored.
#[derive(Clone)]
pub struct Token {
    name: Box<str>,
    digest: [u8; digest::SHA256_OUTPUT_LEN],
    scope: Arc<Scope>,
}

/// Authenticates callers by bearer token, or accepts all callers.
#[derive(Debug)]
pub struct Authenticator {
    /// The valid tokens; `None` if no token is needed.
    tokens: Option<ArcSwap<Vec<Token>>>,
}

/// The permissions of an authenticated caller. Only [`Authenticator::authenticate`] creates it.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// The scope of the caller's token; `None` if no token is needed.
    scope: Option<Arc<Scope>>,
}

/// Why a file contains no valid token. No message contains the token itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file does not contain exactly one valid token.
    #[error("{} {why}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        why: &'static str,
    },
}

/// Why a caller is denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The request has no bearer token, or has several `Authorization` headers.
    #[error("A bearer token is required.")]
    NoToken,
    /// The token is not one of the valid tokens.
    #[error("The bearer token is not valid.")]
    WrongToken,
    /// The request is not within the token's scope.
    #[error("{0}")]
    BeyondScope(String),
}

/// The minimum length of a token. A shorter token can be guessed.
const TOKEN_CHARS_MIN: usize = 16;

/// The maximum size of a token's file. A larger file is rejected.
const TOKEN_FILE_BYTES_MAX: u64 = 4_096;

// === impl Scope ===

impl Scope {
    fn permits_service(&self, service: &str) -> bool {
        match self {
            Self::All => true,
            Self::Services(names) => names.iter().any(|name| **name == *service),
        }
    }
}

// === impl Token ===

impl Token {
    /// Reads a token from its file. Ignores surrounding white space, because editors end files with a line break.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(name: &str, path: &Path, scope: Scope) -> Result<Self, TokenError> {
        let invalid = |why| TokenError::Invalid { path: path.to_path_buf(), why };
        let bytes = read_regular(path, TOKEN_FILE_BYTES_MAX)
            .map_err(|source| TokenError::Read { path: path.to_path_buf(), source })?;
        let token = bytes.trim_ascii();
        if token.is_empty() {
            return Err(invalid("is empty"));
        }
        // A client cannot send other characters in a header.
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(invalid("must contain one token of printable ASCII characters, without spaces"));
        }
        if token.len() < TOKEN_CHARS_MIN {
            return Err(invalid(
                "contains a token of fewer than 16 characters. hint: `openssl rand -hex 32` prints a valid one",
            ));
        }
        Ok(Self { name: name.into(), digest: digest_of(token), scope: Arc::new(scope) })
    }

    /// Returns the token's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether two tokens have the same value. Such tokens are rejected, because their scopes could differ.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.digest, &other.digest).is_ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("scope", &self.scope).finish_non_exhaustive()
    }
}

// === impl Authenticator ===

impl Authenticator {
    /// Creates an authenticator that accepts all callers.
    #[must_use]
    pub fn open() -> Self {
        Self { tokens: None }
    }

    /// Creates an authenticator that accepts callers with one of these tokens. If the list is empty, no caller is
    /// accepted.
    #[must_use]
    pub fn with_tokens(tokens: Vec<Token>) -> Self {
        Self { tokens: Some(ArcSwap::from_pointee(tokens)) }
    }

    /// Returns whether callers need a token.
    #[must_use]
    pub fn needs_token(&self) -> bool {
        self.tokens.is_some()
    }

    /// Replaces the valid tokens for requests that begin from now on. Does nothing if no token is needed.
    pub fn replace(&self, tokens: Vec<Token>) {
        if let Some(current) = &self.tokens {
            current.store(Arc::new(tokens));
        }
    }

    /// Authenticates the sender of a request from the values of its `Authorization` headers.
    ///
    /// # Errors
    /// [`Denied`] if a token is needed and the request has no valid one.
    pub fn authenticate<'h>(&self, headers: impl IntoIterator<Item = &'h [u8]>) -> Result<Authorization, Denied> {
        let Some(tokens) = &self.tokens else { return Ok(Authorization { scope: None }) };
        let presented = bearer(headers).ok_or(Denied::NoToken)?;
        let presented = digest_of(presented);
        let mut scope = None;
        // Always compares all tokens, so that the duration does not reveal which one matched.
        for token in tokens.load().iter() {
            if verify_slices_are_equal(&token.digest, &presented).is_ok() {
                scope = Some(Arc::clone(&token.scope));
            }
        }
        if scope.is_none() { Err(Denied::WrongToken) } else { Ok(Authorization { scope }) }
    }

    /// Authenticates a caller without a token.
    ///
    /// # Errors
    /// [`Denied`] if a token is needed.
    pub fn authenticate_anonymous(&self) -> Result<Authorization, Denied> {
        self.authenticate(iter::empty())
    }
}

// === impl Authorization ===

impl Authorization {
    /// Returns whether the caller may look up a feature service and learn its name.
    #[must_use]
    pub fn permits_service(&self, service: &str) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.permits_service(service))
    }

    /// Returns whether the caller may do everything that its listener offers.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        matches!(self.scope.as_deref(), None | Some(Scope::All))
    }

    /// Checks whether the caller may run a lookup. A limited scope permits feature services by name, so it permits no
    /// lookup of a list of features.
    ///
    /// # Errors
    /// [`Denied::BeyondScope`], which does not reveal whether the service exists.
    pub fn check_lookup(&self, selection: &Selection<'_>) -> Result<(), Denied> {
        let Some(Scope::Services(names)) = self.scope.as_deref() else { return Ok(()) };
        match selection {
            Selection::Service(service) if self.permits_service(service) => Ok(()),
            Selection::Service(service) => {
                Err(Denied::BeyondScope(format!("This token's scope does not include feature service '{service}'.")))
            }
            Selection::Features(_) => {
                let names = names.join(", ");
                let message = format!("This token's scope permits only lookups of feature services by name: {names}.");
                Err(Denied::BeyondScope(message))
            }
        }
    }

    /// Checks whether the caller may write, which needs an unlimited scope.
    ///
    /// # Errors
    /// [`Denied::BeyondScope`].
    pub fn check_write(&self) -> Result<(), Denied> {
        if self.is_unlimited() {
            return Ok(());
        }
        let message = "This token's scope permits only lookups of feature services, not writes.";
        Err(Denied::BeyondScope(message.to_owned()))
    }

    /// Removes a suggested name from an error if it is not within the scope.
    #[must_use]
    pub fn hide_names(&self, error: RequestError) -> RequestError {
        if self.is_unlimited() { error } else { error.hide_names(|name| self.permits_service(name)) }
    }
}

/// Returns the token of `Authorization: Bearer <token>`. Several `Authorization` headers are ambiguous, so they are
/// treated as no token.
fn bearer<'h>(headers: impl IntoIterator<Item = &'h [u8]>) -> Option<&'h [u8]> {
    let mut values = headers.into_iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn digest_of(token: &[u8]) -> [u8; digest::SHA256_OUTPUT_LEN] {
    let mut bytes = [0; digest::SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const LONG: &str = "0123456789abcdef";

    fn read(content: &[u8]) -> Result<Token, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, content).unwrap();
        Token::read("t", &path, Scope::All)
            .map_err(|error| error.to_string().replace(&dir.path().display().to_string(), "DIR"))
    }

    fn authenticate(authenticator: &Authenticator, values: &[&str]) -> Result<Authorization, Denied> {
        authenticator.authenticate(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn file_must_contain_one_long_token() {
        assert!(read(LONG.as_bytes()).unwrap().is_same(&read(format!("\n {LONG} \r\n").as_bytes()).unwrap()));
        for (content, why) in [
            (&b""[..], "is empty"),
            (b" \n", "is empty"),
            (b"0123456789abcde", "fewer than 16"),
            (b"0123456789abcdef 0123456789abcdef", "without spaces"),
            (b"0123456789abcdef\n0123456789abcdef", "without spaces"),
            (b"0123456789abcdef\0", "printable"),
            (b"0123456789abcdef\xff", "printable"),
            (&[b'x'; 5_000], "more than 4096 bytes"),
        ] {
            let refused = read(content).unwrap_err();
            assert!(refused.contains("DIR/token") && refused.contains(why), "{refused}");
            assert!(!refused.contains("0123"), "{refused}");
        }
        let absent = Token::read("t", Path::new("/nowhere/token"), Scope::All).unwrap_err();
        assert!(absent.to_string().starts_with("cannot read /nowhere/token: No such file"), "{absent}");
        let directory = Token::read("t", Path::new("/"), Scope::All).unwrap_err();
        assert_eq!(directory.to_string(), "cannot read /: Is a directory (os error 21)");
    }

    #[test]
    fn only_the_whole_token_authenticates() {
        let tokens = Authenticator::with_tokens(vec![read(LONG.as_bytes()).unwrap()]);
        for right in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef", "BEARER  0123456789abcdef"] {
            assert!(authenticate(&tokens, &[right]).unwrap().is_unlimited(), "{right}");
        }
        for wrong in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdef0"],
            &["Bearer 0123456789ABCDEF"],
            &["Bearer  0123456789abcdef, x"],
            &["Basic 0123456789abcdef"],
            &["0123456789abcdef"],
            &["Bearer\t0123456789abcdef"],
            &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
        ] {
            let denied = authenticate(&tokens, wrong).unwrap_err();
            assert!(matches!(denied, Denied::NoToken | Denied::WrongToken), "{wrong:?}");
        }
        let none = Authenticator::with_tokens(Vec::new());
        assert!(authenticate(&none, &["Bearer 0123456789abcdef"]).is_err(), "an empty list accepts no caller");
        tokens.replace(Vec::new());
        assert!(authenticate(&tokens, &["Bearer 0123456789abcdef"]).is_err(), "the token was replaced");
    }

    #[test]
    fn open_authenticator_stays_open() {
        let open = Authenticator::open();
        open.replace(Vec::new());
        for headers in [&[][..], &["Bearer x"], &["", ""]] {
            assert!(authenticate(&open, headers).unwrap().is_unlimited());
        }
    }

    #[test]
    fn scope_matches_services_by_full_name() {
        let services = Scope::Services(["churn".into(), "fraud_v2".into()].into());
        let caller = Authorization { scope: Some(Arc::new(services)) };
        assert!(caller.check_lookup(&Selection::Service("churn".into())).is_ok());
        for service in ["churn_", "chur", "Churn", "", "fraud"] {
            let denied = caller.check_lookup(&Selection::Service(service.into())).unwrap_err();
            assert!(denied.to_string().contains(&format!("'{service}'")), "{denied}");
        }
        let denied = caller.check_lookup(&Selection::Features(vec!["a:b".into()])).unwrap_err();
        assert!(denied.to_string().contains("churn, fraud_v2"), "{denied}");
        assert!(caller.check_write().is_err() && !caller.is_unlimited());
        for unlimited in [None, Some(Arc::new(Scope::All))] {
            let caller = Authorization { scope: unlimited };
            assert!(caller.check_lookup(&Selection::Features(Vec::new())).is_ok() && caller.check_write().is_ok());
        }
    }

    #[test]
    fn debug_output_hides_tokens() {
        let token = read(LONG.as_bytes()).unwrap();
        let printed = format!("{token:?} {:?}", Authenticator::with_tokens(vec![token.clone()]));
        assert!(!printed.contains(LONG) && !printed.contains(&format!("{:?}", token.digest)), "{printed}");
    }
}
