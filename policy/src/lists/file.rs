//! A list as it is written: `lists/NAME.toml`.

use std::collections::HashMap;
use std::hash::Hash;
use std::str::FromStr;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use serde::Deserialize;
use toml::Spanned;
use toml::value::Datetime;

use super::script::{self, DEFAULT_ADDRESSES, MAX_ADDRESSES, ScriptKind};
use super::{Entry, Kind, List, ListError, ListFault};
use crate::names::is_name;
use crate::place::Place;
use crate::time;

/// The largest file, in bytes: whoever reads one reads at most a byte more.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// The most entries of a file.
pub const MAX_ENTRIES: usize = 10_000;

/// The longest label.
pub(super) const MAX_LABEL_CHARS: usize = 64;
/// The most errors that are told of one file.
pub const MAX_ERRORS: usize = 50;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    destination: Vec<Spanned<DestinationEntry>>,
    #[serde(default)]
    payee: Vec<Spanned<NodeEntry>>,
    #[serde(default)]
    peer: Vec<Spanned<NodeEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DestinationEntry {
    label: Spanned<String>,
    address: Option<Spanned<String>>,
    descriptor: Option<Spanned<String>>,
    xpub: Option<Spanned<String>>,
    script: Option<Spanned<String>>,
    addresses: Option<Spanned<u32>>,
    effective_from: Option<Spanned<Datetime>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeEntry {
    label: Spanned<String>,
    node_id: Spanned<String>,
    effective_from: Option<Spanned<Datetime>>,
}

impl List {
    /// The list `name`, which is the file's name without `.toml`, from the file's `text`. Addresses and keys must be of
    /// `network`.
    ///
    /// Returns the errors that are found, at most [`MAX_ERRORS`].
    pub fn parse(name: &str, text: &str, network: Network) -> Result<Self, Vec<ListError>> {
        let errors = |faults: Vec<Fault>| {
            let told = faults.into_iter().take(MAX_ERRORS);
            told.map(|(offset, fault)| ListError { place: Place::of(text, offset), fault }).collect()
        };
        read(name, text, network).map_err(errors)
    }
}

/// Where in the text, and what.
type Fault = (usize, ListFault);

fn read(name: &str, text: &str, network: Network) -> Result<List, Vec<Fault>> {
    if text.len() > MAX_FILE_BYTES {
        return Err(vec![(0, ListFault::TooLarge(text.len()))]);
    }
    if !is_name(name) {
        return Err(vec![(0, ListFault::Name(name.to_owned()))]);
    }
    let file: File = toml::from_str(text).map_err(|error| {
        vec![(error.span().map_or(0, |span| span.start), ListFault::Syntax(error.message().to_owned()))]
    })?;
    let entries = file.destination.len() + file.payee.len() + file.peer.len();
    if entries > MAX_ENTRIES {
        return Err(vec![(0, ListFault::TooManyEntries(entries))]);
    }
    let list = List { name: name.to_owned(), entries: Vec::new(), scripts: Vec::new(), nodes: Vec::new() };
    let mut reader = Reader { network, list, offsets: Vec::new(), room: MAX_ADDRESSES as usize };
    let mut faults = Vec::new();
    for entry in &file.destination {
        faults.extend(reader.destination(entry).err());
    }
    for (kind, nodes) in [(Kind::Payee, &file.payee), (Kind::Peer, &file.peer)] {
        for entry in nodes {
            faults.extend(reader.node(kind, entry).err());
        }
    }
    let Reader { list, offsets, .. } = reader;
    for (first, second) in repeated(&list.scripts).into_iter().chain(repeated(&list.nodes)).take(MAX_ERRORS) {
        faults.push((offsets[second], ListFault::Duplicate(Place::of(text, offsets[first]))));
    }
    if faults.is_empty() { Ok(list) } else { Err(faults) }
}

struct Reader {
    network: Network,
    list: List,
    /// Of each entry of the list, in the text.
    offsets: Vec<usize>,
    /// How many addresses may still be derived.
    room: usize,
}

impl Reader {
    fn destination(&mut self, spanned: &Spanned<DestinationEntry>) -> Result<(), Fault> {
        let entry = spanned.get_ref();
        let (subject, scripts) = match (&entry.address, &entry.descriptor, &entry.xpub) {
            (Some(address), None, None) => {
                needless("script", entry.script.as_ref())?;
                needless("addresses", entry.addresses.as_ref())?;
                let script = script::of_address(address.get_ref(), self.network).map_err(at(address))?;
                (address.get_ref().clone(), vec![script])
            }
            (None, Some(descriptor), None) => {
                needless("script", entry.script.as_ref())?;
                let (text, count) = (descriptor.get_ref(), count(entry)?);
                if !text.contains('*') {
                    needless("addresses", entry.addresses.as_ref())?;
                }
                let scripts = script::of_descriptor(text, self.network, count, self.room).map_err(at(descriptor))?;
                let subject = if text.contains('*') { format!("{text} ({count})") } else { text.clone() };
                (subject, scripts)
            }
            (None, None, Some(xpub)) => {
                let (text, count, kind) = (xpub.get_ref(), count(entry)?, script_kind(entry)?);
                let scripts = script::of_xpub(text, kind, self.network, count, self.room).map_err(at(xpub))?;
                (format!("{} {text} ({count})", kind.id()), scripts)
            }
            _ => return Err(at(spanned)(ListFault::NotOne)),
        };
        self.room = self.room.saturating_sub(scripts.len());
        let index = self.add(spanned, Kind::Destination, subject, &entry.label, entry.effective_from.as_ref())?;
        self.list.scripts.extend(scripts.into_iter().map(|script| (script, index)));
        Ok(())
    }

    fn node(&mut self, kind: Kind, spanned: &Spanned<NodeEntry>) -> Result<(), Fault> {
        let NodeEntry { label, node_id, effective_from } = spanned.get_ref();
        let text = node_id.get_ref();
        let key = PublicKey::from_str(text).map(|key| key.to_string()); // compressed, in lower case
        if key.as_ref() != Ok(text) {
            return Err(at(node_id)(ListFault::NodeId(text.clone())));
        }
        let index = self.add(spanned, kind, text.clone(), label, effective_from.as_ref())?;
        self.list.nodes.push(((kind, text.clone()), index));
        Ok(())
    }

    /// Adds an entry and returns its index.
    fn add<T>(
        &mut self,
        spanned: &Spanned<T>,
        kind: Kind,
        subject: String,
        label: &Spanned<String>,
        effective_from: Option<&Spanned<Datetime>>,
    ) -> Result<usize, Fault> {
        let text = label.get_ref();
        if !(1..=MAX_LABEL_CHARS).contains(&text.chars().count()) || text.chars().any(char::is_control) {
            return Err(at(label)(ListFault::Label));
        }
        let effective_from_ms = match effective_from {
            None => 0,
            Some(from) => match time::parse(&from.get_ref().to_string()) {
                Some(unix_s) => unix_s * 1_000,
                None => return Err(at(from)(ListFault::Time)),
            },
        };
        let (list, label) = (self.list.name.clone(), text.clone());
        self.list.entries.push(Entry { list, kind, label, subject, effective_from_ms });
        self.offsets.push(spanned.span().start);
        Ok(self.offsets.len() - 1)
    }
}

fn at<T>(spanned: &Spanned<T>) -> impl Fn(ListFault) -> Fault {
    let offset = spanned.span().start;
    move |fault| (offset, fault)
}

fn needless<T>(key: &'static str, value: Option<&Spanned<T>>) -> Result<(), Fault> {
    value.map_or(Ok(()), |value| Err(at(value)(ListFault::Needless(key))))
}

fn count(entry: &DestinationEntry) -> Result<u32, Fault> {
    match &entry.addresses {
        None => Ok(DEFAULT_ADDRESSES),
        Some(count) if (1..=MAX_ADDRESSES).contains(count.get_ref()) => Ok(*count.get_ref()),
        Some(count) => Err(at(count)(ListFault::Addresses(*count.get_ref()))),
    }
}

fn script_kind(entry: &DestinationEntry) -> Result<ScriptKind, Fault> {
    match &entry.script {
        None => Ok(ScriptKind::Wpkh),
        Some(id) => {
            let kind = ScriptKind::by_id(id.get_ref());
            kind.ok_or_else(|| at(id)(ListFault::Script(id.get_ref().clone())))
        }
    }
}

/// Entries that list what is listed already: each with the one that did first.
fn repeated<T: Eq + Hash>(listed: &[(T, usize)]) -> Vec<(usize, usize)> {
    let mut first = HashMap::with_capacity(listed.len());
    let twice = listed.iter().filter_map(|(what, index)| Some((first.insert(what, *index)?, *index)));
    let mut twice: Vec<_> = twice.collect();
    twice.dedup_by_key(|(_, second)| *second);
    twice
}
