//! Bearer tokens: who may ask, and for which feature services.
//!
//! A token is kept as its SHA-256 digest only. A presented one is digested too, and the digests are compared in
//! constant time: neither a token's length nor how much of it was guessed shows in how long that takes.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use hyper::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE},
};
use larder_common::files::read_regular;
use larder_model::yaml::Located;
use larder_serving::Selection;

use super::HttpError;

/// `server: auth`: who may ask. There is at least one token.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The tokens. Two can be valid at a time, so that clients can change from one to the other.
    pub tokens: Vec<TokenConfig>,
}

/// One token.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// Its name, for messages: it is no secret.
    pub name: Located<String>,
    /// The file that holds it and nothing else.
    pub file: Located<PathBuf>,
    /// The feature services that it may ask for; without a list, everything.
    pub services: Option<Vec<Located<String>>>,
}

/// What a caller may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// Feature services by these names, and nothing else.
    Services(Box<[Box<str>]>),
}

/// A token as it is kept: it cannot be read back.
#[derive(Clone)]
pub struct Token {
    name: Box<str>,
    digest: [u8; digest::SHA256_OUTPUT_LEN],
    scope: Arc<Scope>,
}

/// The tokens that are valid. A request takes those that are current when it begins.
#[derive(Debug)]
pub struct Tokens {
    current: ArcSwap<Vec<Token>>,
}

/// Why a file gives no token. The token itself is in no message.
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
    /// It has something else in it than a token.
    #[error("{} {why}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        why: &'static str,
    },
}

/// Why a caller is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no token.
    #[error("A bearer token is needed.")]
    NoToken,
    /// There is one, and nobody has it.
    #[error("The bearer token is not valid.")]
    WrongToken,
    /// What is asked for is beyond the token's scope.
    #[error("{0}")]
    BeyondScope(String),
}

/// A shorter token can be guessed.
const TOKEN_CHARS_MIN: usize = 16;

/// A file that holds more holds no token.
const TOKEN_FILE_BYTES_MAX: u64 = 4_096;

// === impl Token ===

impl Token {
    /// Reads a token from its file. White space around it does not count: editors end files with a line break.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(name: &str, path: &Path, scope: Scope) -> Result<Self, TokenError> {
        let unfit = |why| TokenError::Unfit { path: path.to_path_buf(), why };
        let bytes = read_regular(path, TOKEN_FILE_BYTES_MAX)
            .map_err(|source| TokenError::Read { path: path.to_path_buf(), source })?;
        let token = bytes.trim_ascii();
        if token.is_empty() {
            return Err(unfit("is empty"));
        }
        // What a header cannot carry, no client can send.
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(unfit("has to hold one token of printable ASCII characters, without spaces"));
        }
        if token.len() < TOKEN_CHARS_MIN {
            return Err(unfit("holds a token of fewer than 16 characters"));
        }
        Ok(Self { name: name.into(), digest: digest_of(token), scope: Arc::new(scope) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether two tokens are the same word: then nobody could say whose a request is.
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

// === impl Tokens ===

impl Tokens {
    /// These, from now on. None at all lets nobody in.
    #[must_use]
    pub fn new(tokens: Vec<Token>) -> Self {
        Self { current: ArcSwap::from_pointee(tokens) }
    }

    /// Others in their place, for requests that begin from here on.
    pub fn replace(&self, tokens: Vec<Token>) {
        self.current.store(Arc::new(tokens));
    }

    /// What the sender of these headers may ask for.
    ///
    /// # Errors
    /// [`Denied`] without a valid token.
    pub fn admit(&self, headers: &HeaderMap) -> Result<Arc<Scope>, Denied> {
        let presented = bearer(headers).ok_or(Denied::NoToken)?;
        let presented = digest_of(presented);
        let mut admitted = None;
        // All are compared, always: how long it takes does not tell which one it was.
        for token in self.current.load().iter() {
            if verify_slices_are_equal(&token.digest, &presented).is_ok() {
                admitted = Some(Arc::clone(&token.scope));
            }
        }
        admitted.ok_or(Denied::WrongToken)
    }
}

// === impl Scope ===

impl Scope {
    /// Whether a feature service may be asked for.
    #[must_use]
    pub fn has(&self, service: &str) -> bool {
        match self {
            Self::All => true,
            Self::Services(names) => names.iter().any(|name| **name == *service),
        }
    }

    /// Refuses what is beyond it. A list of features is: a scope names services, and says nothing of what is in them.
    ///
    /// # Errors
    /// [`Denied::BeyondScope`], which names what is missing. Whether the service exists is not told.
    pub fn check(&self, selection: &Selection<'_>) -> Result<(), Denied> {
        let Self::Services(names) = self else { return Ok(()) };
        match selection {
            Selection::Service(service) if self.has(service) => Ok(()),
            Selection::Service(service) => {
                Err(Denied::BeyondScope(format!("This token's scope does not have feature service '{service}'.")))
            }
            Selection::Features(_) => {
                let names = names.join(", ");
                let message = format!("This token's scope has feature services only, asked for by name: {names}.");
                Err(Denied::BeyondScope(message))
            }
        }
    }

    /// Refuses to write, unless everything may be asked for.
    ///
    /// # Errors
    /// [`Denied::BeyondScope`].
    pub fn check_write(&self) -> Result<(), Denied> {
        match self {
            Self::All => Ok(()),
            Self::Services(_) => {
                let message = "This token's scope has feature services only: it may not write.";
                Err(Denied::BeyondScope(message.to_owned()))
            }
        }
    }
}

/// The token of `Authorization: Bearer <token>`. Two such headers are as bad as none: who is meant?
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn digest_of(token: &[u8]) -> [u8; digest::SHA256_OUTPUT_LEN] {
    let mut bytes = [0; digest::SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
    bytes
}

impl From<Denied> for HttpError {
    fn from(denied: Denied) -> Self {
        let kind = match &denied {
            Denied::BeyondScope(message) => return Self::forbidden(message),
            Denied::NoToken => "no_token",
            Denied::WrongToken => "wrong_token",
        };
        let mut error = Self::detail(StatusCode::UNAUTHORIZED, kind, denied.to_string());
        error.header = Some(Box::new((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))));
        error
    }
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

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_file_holds_one_token_that_is_long_enough() {
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
    fn only_the_whole_token_is_let_in() {
        let tokens = Tokens::new(vec![read(LONG.as_bytes()).unwrap()]);
        for right in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef", "BEARER  0123456789abcdef"] {
            assert_eq!(*tokens.admit(&headers(&[right])).unwrap(), Scope::All, "{right}");
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
            let refused = HttpError::from(tokens.admit(&headers(wrong)).unwrap_err());
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{wrong:?}");
            assert_eq!(refused.header.unwrap().1, "Bearer");
        }
        assert!(Tokens::new(Vec::new()).admit(&headers(&["Bearer 0123456789abcdef"])).is_err(), "none lets nobody in");
        tokens.replace(Vec::new());
        assert!(tokens.admit(&headers(&["Bearer 0123456789abcdef"])).is_err(), "it was replaced");
    }

    #[test]
    fn a_scope_has_services_by_their_whole_names() {
        let scope = Scope::Services(["churn".into(), "fraud_v2".into()].into());
        assert!(scope.check(&Selection::Service("churn".into())).is_ok());
        for service in ["churn_", "chur", "Churn", "", "fraud"] {
            let refused = HttpError::from(scope.check(&Selection::Service(service.into())).unwrap_err());
            assert_eq!(refused.status, StatusCode::FORBIDDEN);
            assert!(refused.body.to_string().contains(&format!("'{service}'")), "{}", refused.body);
        }
        let refused = HttpError::from(scope.check(&Selection::Features(vec!["a:b".into()])).unwrap_err());
        assert!(refused.body.to_string().contains("churn, fraud_v2"), "{}", refused.body);
        assert!(Scope::All.check(&Selection::Features(Vec::new())).is_ok());
        assert!(scope.check_write().is_err() && Scope::All.check_write().is_ok());
    }

    #[test]
    fn nothing_that_is_printed_has_the_token_in_it() {
        let token = read(LONG.as_bytes()).unwrap();
        let printed = format!("{token:?} {:?}", Tokens::new(vec![token.clone()]));
        assert!(!printed.contains(LONG) && !printed.contains(&format!("{:?}", token.digest)), "{printed}");
    }
}
