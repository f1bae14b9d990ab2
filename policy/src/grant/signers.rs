//! Whose keys approve: an OpenSSH `allowed_signers` file, read more strictly than `ssh-keygen` reads it.
//!
//! A line is `NAME [OPTIONS] KEYTYPE BASE64 [COMMENT]`; see ALLOWED SIGNERS in ssh-keygen(1). What would let one line stand for
//! several people, or one key for two, is refused by name. So is what this reader does not honour.

use ssh_key::public::KeyData;
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, PublicKey};

use super::intent::{is_name, shortened};
use crate::place::Place;
use crate::time;

/// The longest `allowed_signers` file, in bytes.
pub const MAX_FILE: usize = 256 * 1_024;
/// The most keys.
pub const MAX_KEYS: usize = 512;

/// The key types that are taken.
const KEY_TYPES: &str =
    "ssh-ed25519, ecdsa-sha2-nistp256, sk-ssh-ed25519@openssh.com, sk-ecdsa-sha2-nistp256@openssh.com";

/// The people who may approve, with their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approvers {
    keys: Vec<ApproverKey>,
}

/// One line of the file: one key of one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApproverKey {
    pub(super) person: String,
    pub(super) key: KeyData,
    /// As `ssh-keygen -l` shows it: `SHA256:…`.
    pub(super) fingerprint: String,
    options: Options,
}

/// What a line restricts its key to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    /// As the file writes them.
    text: String,
    /// `namespaces="…"`; `None` means all.
    namespaces: Option<Vec<String>>,
    /// `valid-after="…"`, in seconds since the Unix epoch.
    valid_after_s: Option<u64>,
    /// `valid-before="…"`, likewise.
    valid_before_s: Option<u64>,
}

/// What is wrong with an `allowed_signers` file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct SignerError {
    /// In the file.
    pub place: Place,
    /// What is wrong.
    pub fault: SignerFault,
}

/// What is wrong with a line of an `allowed_signers` file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerFault {
    /// Longer than [`MAX_FILE`].
    #[error("the file has {0} bytes, more than {MAX_FILE}")]
    FileTooLong(usize),
    /// More than [`MAX_KEYS`].
    #[error("more than {MAX_KEYS} keys")]
    TooManyKeys,
    /// The first word is not one person's name.
    #[error("'{0}' is not the name of one person")]
    Name(String),
    /// A quotation mark has no partner.
    #[error("a quotation mark is not closed")]
    Quote,
    /// An option that is not honoured here.
    #[error("the option '{0}' is not taken here")]
    Option(String),
    /// An option that stands twice.
    #[error("the option '{0}' stands twice")]
    OptionTwice(&'static str),
    /// A pattern, or nothing, where namespaces are listed.
    #[error("'{0}' is not a namespace")]
    Namespace(String),
    /// Not a time in UTC.
    #[error("'{0}' is not a time in UTC")]
    Time(String),
    /// The key is never valid.
    #[error("the key ends before it begins")]
    NeverValid,
    /// A key type that is not taken.
    #[error("'{0}' is not a key type that is taken")]
    KeyType(String),
    /// The key cannot be read.
    #[error("the key cannot be read")]
    Key,
    /// A hardware key that was made for something else than SSH.
    #[error("the hardware key is for '{0}', not for ssh")]
    Application(String),
    /// The key was listed before.
    #[error("the key was listed before, for '{0}'")]
    KeyTwice(String),
}

impl SignerFault {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::FileTooLong(_) | Self::TooManyKeys => "List the people who approve, and nobody else.".into(),
            Self::Name(_) => {
                "Start the line with one name of a-z, 0-9, '-', '_', '.' and '@': no capitals, commas or patterns."
                    .into()
            }
            Self::Quote => "Close the quotation mark.".into(),
            Self::Option(_) => {
                "Use namespaces, valid-after and valid-before. Certificates are not taken: list the key.".into()
            }
            Self::OptionTwice(_) => "Leave one.".into(),
            Self::Namespace(_) => {
                "Write namespaces in full, e.g. namespaces=\"claviger-grant,claviger-request\".".into()
            }
            Self::Time(_) => {
                "Write YYYYMMDDZ, YYYYMMDDHHMMZ or YYYYMMDDHHMMSSZ; without Z it would depend on the host.".into()
            }
            Self::NeverValid => "Correct valid-after or valid-before, or take the line out.".into(),
            Self::KeyType(_) => {
                format!("Use one of {KEY_TYPES}; `ssh-keygen -t ed25519` or `-t ed25519-sk` makes one.")
            }
            Self::Key => "Copy the first two words of the .pub file.".into(),
            Self::Application(_) => {
                "Make the key with an application that begins with 'ssh:', as ssh-keygen does.".into()
            }
            Self::KeyTwice(_) => "One key is one person's; one line lists it.".into(),
        }
    }
}

impl Approvers {
    /// Reads an `allowed_signers` file.
    ///
    /// Returns every error that is found, at most one a line.
    pub fn parse(text: &str) -> Result<Self, Vec<SignerError>> {
        if text.len() > MAX_FILE {
            let place = Place { line: 1, column: 1 };
            return Err(vec![SignerError { place, fault: SignerFault::FileTooLong(text.len()) }]);
        }
        let (mut keys, mut errors) = (Vec::<ApproverKey>::new(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let read =
                ApproverKey::parse(line).and_then(|read| match keys.iter().find(|known| known.key == read.key) {
                    Some(known) => Err((0, SignerFault::KeyTwice(known.person.clone()))),
                    None if keys.len() == MAX_KEYS => Err((0, SignerFault::TooManyKeys)),
                    None => Ok(read),
                });
            match read {
                Ok(read) => keys.push(read),
                Err((offset, fault)) => {
                    let full = matches!(fault, SignerFault::TooManyKeys);
                    let place = Place { line: index + 1, column: Place::of(line, offset).column };
                    errors.push(SignerError { place, fault });
                    if full {
                        break;
                    }
                }
            }
        }
        if errors.is_empty() { Ok(Self { keys }) } else { Err(errors) }
    }

    /// Whether the file lists a key of `person` that may sign for `namespace`, now or at some other time.
    pub fn can_sign(&self, person: &str, namespace: &str) -> bool {
        self.of(person).any(|known| known.signs_for(namespace))
    }

    /// All keys: whose, the fingerprint as `ssh-keygen -l` shows it, and the options as the file writes them.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.keys.iter().map(|known| (known.person.as_str(), known.fingerprint.as_str(), known.options.text.as_str()))
    }

    pub(super) fn of<'a>(&'a self, person: &'a str) -> impl Iterator<Item = &'a ApproverKey> {
        self.keys.iter().filter(move |known| known.person == person)
    }

    pub(super) fn by_key(&self, key: &KeyData) -> Option<&ApproverKey> {
        self.keys.iter().find(|known| known.key == *key)
    }
}

impl ApproverKey {
    /// Reads one line. Errors come with where in the line they are.
    fn parse(line: &str) -> Result<Self, (usize, SignerFault)> {
        let mut words = Words { line, at: 0 };
        let (at, person) = words.next()?;
        if !is_name(person) {
            return Err((at, SignerFault::Name(shortened(person))));
        }
        let (mut at, mut key_type) = words.next()?;
        let mut options = Options::default();
        if key_type.contains('=') || key_type.to_ascii_lowercase().starts_with("cert-authority") {
            options = Options::parse(key_type, at)?;
            (at, key_type) = words.next()?;
        }
        let (key_at, base64) = words.next()?;
        let taken = matches!(
            Algorithm::new(key_type),
            Ok(Algorithm::Ed25519
                | Algorithm::SkEd25519
                | Algorithm::SkEcdsaSha2NistP256
                | Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 })
        );
        if !taken {
            return Err((at, SignerFault::KeyType(shortened(key_type))));
        }
        let key = PublicKey::from_openssh(&format!("{key_type} {base64}"));
        let key = key.map_err(|_| (key_at, SignerFault::Key))?.key_data().clone();
        match application(&key) {
            Some(application) if !application.starts_with("ssh:") => {
                Err((key_at, SignerFault::Application(shortened(application))))
            }
            _ => {
                let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
                Ok(Self { person: person.to_owned(), key, fingerprint, options })
            }
        }
    }

    pub(super) fn signs_for(&self, namespace: &str) -> bool {
        let namespaces = &self.options.namespaces;
        namespaces.as_ref().is_none_or(|namespaces| namespaces.iter().any(|known| known == namespace))
    }

    /// Whether the key may sign at `now_ms`: from its first second on, until before its last.
    pub(super) fn is_valid(&self, now_ms: u64) -> bool {
        let now_s = now_ms / 1_000;
        self.options.valid_after_s.is_none_or(|after_s| now_s >= after_s)
            && self.options.valid_before_s.is_none_or(|before_s| now_s < before_s)
    }
}

impl Options {
    /// Reads what stands at `at` of a line.
    fn parse(text: &str, at: usize) -> Result<Self, (usize, SignerFault)> {
        let mut options = Self { text: text.to_owned(), ..Self::default() };
        let mut offset = at;
        for option in split_outside_quotes(text) {
            options.read(option).map_err(|fault| (offset, fault))?;
            offset += option.len() + 1;
        }
        match (options.valid_after_s, options.valid_before_s) {
            (Some(after_s), Some(before_s)) if after_s >= before_s => Err((at, SignerFault::NeverValid)),
            _ => Ok(options),
        }
    }

    fn read(&mut self, option: &str) -> Result<(), SignerFault> {
        let unknown = || SignerFault::Option(shortened(option));
        let (name, value) = option.split_once('=').ok_or_else(unknown)?;
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or_else(unknown)?;
        match name.to_ascii_lowercase().as_str() {
            "namespaces" => {
                let namespaces: Vec<_> = value.split(',').map(str::to_owned).collect();
                if let Some(wrong) = namespaces.iter().find(|namespace| !is_name(namespace)) {
                    return Err(SignerFault::Namespace(shortened(wrong)));
                }
                set(&mut self.namespaces, namespaces, "namespaces")
            }
            "valid-after" => set(&mut self.valid_after_s, utc(value)?, "valid-after"),
            "valid-before" => set(&mut self.valid_before_s, utc(value)?, "valid-before"),
            _ => Err(unknown()),
        }
    }
}

/// What a hardware key was made for.
fn application(key: &KeyData) -> Option<&str> {
    match key {
        KeyData::SkEd25519(key) => Some(key.application()),
        KeyData::SkEcdsaSha2NistP256(key) => Some(key.application()),
        _ => None,
    }
}

fn set<T>(option: &mut Option<T>, value: T, name: &'static str) -> Result<(), SignerFault> {
    if option.replace(value).is_some() { Err(SignerFault::OptionTwice(name)) } else { Ok(()) }
}

/// A time of OpenSSH in UTC, in seconds since the Unix epoch.
fn utc(text: &str) -> Result<u64, SignerFault> {
    let wrong = || SignerFault::Time(shortened(text));
    let number = text.strip_suffix('Z').filter(|digits| matches!(digits.len(), 8 | 12 | 14)).ok_or_else(wrong)?;
    let number = time::digits(&format!("{number:0<14}")).ok_or_else(wrong)?;
    let clock = [number / 10_000 % 100, number / 100 % 100, number % 100];
    let day = number / 1_000_000;
    time::seconds(day / 10_000, day / 100 % 100, day % 100, clock).ok_or_else(wrong)
}

/// The words of a line, each with where it begins. Blanks within quotation marks do not part words.
struct Words<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<(usize, &'a str), (usize, SignerFault)> {
        let rest = &self.line[self.at..];
        let start = self.at + (rest.len() - rest.trim_start_matches([' ', '\t']).len());
        let mut quote = None;
        for (offset, byte) in self.line[start..].bytes().enumerate() {
            match byte {
                b'"' => quote = if quote.is_some() { None } else { Some(start + offset) },
                b' ' | b'\t' if quote.is_none() => {
                    self.at = start + offset;
                    return Ok((start, &self.line[start..self.at]));
                }
                _ => {}
            }
        }
        self.at = self.line.len();
        match quote {
            Some(at) => Err((at, SignerFault::Quote)),
            None if start == self.at => Err((start, SignerFault::Key)),
            None => Ok((start, &self.line[start..])),
        }
    }
}

fn split_outside_quotes(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |byte: char| {
        quoted ^= byte == '"';
        byte == ',' && !quoted
    })
}
