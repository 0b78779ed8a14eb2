//! A commit as Git stores it: what was signed, and the signature.

use crate::model::CommitId;

/// The most bytes of a commit that is judged. A merge of a thousand authors has a hundredth of it.
const COMMIT_LIMIT: usize = 1 << 20;

/// The most bytes of a signature. One by RSA with 8192 bits has 3 KiB.
const SIGNATURE_LIMIT: usize = 64 << 10;

/// A commit's bytes, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its parents.
    pub parents: Vec<CommitId>,
    /// Author as it is typed: `Name <address>`.
    pub author: String,
    /// When the committer says that it was made, in seconds since 1970.
    pub committed: i64,
    /// The first line of its message.
    pub subject: String,
    /// What is signed: all of it without the signature.
    pub payload: Vec<u8>,
    /// The signature, armored.
    pub signature: Option<Vec<u8>>,
}

/// Why a commit's bytes can't be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadObject {
    /// Not as Git writes commits.
    #[error("it is not as Git writes commits")]
    Malformed,
    /// Very long.
    #[error("it has more than 1 MiB")]
    TooLarge,
    /// A very long signature.
    #[error("its signature has more than 64 KiB")]
    SignatureTooLarge,
    /// Programs differ in which one counts.
    #[error("it has more than one signature")]
    TwoSignatures,
    /// For repositories with SHA-256 ids.
    #[error("it carries a signature for a repository with SHA-256 ids")]
    OtherHash,
}

impl Object {
    /// Takes a commit apart.
    ///
    /// # Errors
    /// [`BadObject`]: whatever two programs could read in two ways.
    pub fn parse(raw: &[u8]) -> Result<Self, BadObject> {
        if raw.len() > COMMIT_LIMIT {
            return Err(BadObject::TooLarge);
        }
        let end = raw.windows(2).position(|pair| pair == b"\n\n").ok_or(BadObject::Malformed)?;
        let (head, message) = (&raw[..=end], &raw[end + 2..]);
        if head.contains(&0) {
            return Err(BadObject::Malformed);
        }
        let headers = headers(head)?;
        let (author, committer, parents) = fixed(&headers)?;
        let (mut payload, mut signature) = (Vec::with_capacity(raw.len()), None);
        for header in &headers {
            match header.name {
                b"gpgsig-sha256" => return Err(BadObject::OtherHash),
                b"gpgsig" if signature.is_some() => return Err(BadObject::TwoSignatures),
                b"gpgsig" => signature = Some(header.value()),
                _ => payload.extend(header.lines),
            }
        }
        if signature.as_ref().is_some_and(|signature| signature.len() > SIGNATURE_LIMIT) {
            return Err(BadObject::SignatureTooLarge);
        }
        payload.push(b'\n');
        payload.extend(message);
        let subject = String::from_utf8_lossy(message.split(|byte| *byte == b'\n').next().unwrap_or_default()).into_owned();
        let (author, _) = person(author)?;
        let (_, committed) = person(committer)?;
        Ok(Self { parents, author, committed, subject, payload, signature })
    }
}

/// A header with its continuation lines.
struct Header<'a> {
    name: &'a [u8],
    /// All its lines, each with its line break.
    lines: &'a [u8],
}

impl Header<'_> {
    /// What stands after the name, without the space in front of each further line.
    fn value(&self) -> Vec<u8> {
        let value = &self.lines[self.name.len() + 1..];
        let lines: Vec<&[u8]> = value.split_inclusive(|byte| *byte == b'\n').collect();
        lines.iter().enumerate().flat_map(|(n, line)| if n == 0 { line } else { &line[1..] }).copied().collect()
    }
}

fn headers(mut rest: &[u8]) -> Result<Vec<Header<'_>>, BadObject> {
    let mut headers = Vec::new();
    while !rest.is_empty() {
        let mut length = 0;
        loop {
            length += rest[length..].iter().position(|byte| *byte == b'\n').ok_or(BadObject::Malformed)? + 1;
            if rest.get(length) != Some(&b' ') {
                break;
            }
        }
        let (lines, after) = rest.split_at(length);
        let space = lines.iter().position(|byte| matches!(byte, b' ' | b'\n'));
        let name = space.filter(|at| *at > 0 && lines[*at] == b' ').map(|at| &lines[..at]).ok_or(BadObject::Malformed)?;
        headers.push(Header { name, lines });
        rest = after;
    }
    Ok(headers)
}

/// The headers that every commit has, in Git's order and once each: author, committer, parents.
#[allow(clippy::type_complexity)]
fn fixed<'a>(headers: &[Header<'a>]) -> Result<(&'a [u8], &'a [u8], Vec<CommitId>), BadObject> {
    let one_line = |header: &Header<'a>| {
        let value = header.lines.get(header.name.len() + 1..header.lines.len() - 1).unwrap_or_default();
        if value.contains(&b'\n') { Err(BadObject::Malformed) } else { Ok(value) }
    };
    let mut rest = headers.iter().peekable();
    let mut next = |name: &[u8]| rest.next_if(|header| header.name == name).map(one_line).transpose();
    next(b"tree")?.ok_or(BadObject::Malformed)?;
    let mut parents = Vec::new();
    while let Some(parent) = next(b"parent")? {
        let id = std::str::from_utf8(parent).ok().and_then(|text| text.parse().ok());
        parents.push(id.ok_or(BadObject::Malformed)?);
    }
    let author = next(b"author")?.ok_or(BadObject::Malformed)?;
    let committer = next(b"committer")?.ok_or(BadObject::Malformed)?;
    let again = |header: &Header<'_>| matches!(header.name, b"tree" | b"parent" | b"author" | b"committer");
    if rest.any(again) { Err(BadObject::Malformed) } else { Ok((author, committer, parents)) }
}

/// `Name <address>`, and the seconds after it.
fn person(value: &[u8]) -> Result<(String, i64), BadObject> {
    let end = value.iter().rposition(|byte| *byte == b'>').ok_or(BadObject::Malformed)?;
    let seconds = value[end + 1..].split(|byte| *byte == b' ').find(|part| !part.is_empty());
    let seconds = seconds.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).ok_or(BadObject::Malformed)?;
    Ok((String::from_utf8_lossy(&value[..=end]).into_owned(), seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n";
    const PEOPLE: &str = "author Ada <ada@example.org> 1700000000 +0100\ncommitter Bob <bob@example.org> 1700000001 +0000\n";
    const SIGNATURE: &str = "gpgsig -----BEGIN SSH SIGNATURE-----\n U1NIU0lH\n -----END SSH SIGNATURE-----\n";

    #[test]
    fn the_payload_is_all_but_the_signature() {
        let parent = format!("parent {}\n", "ab".repeat(20));
        let object = Object::parse(format!("{TREE}{parent}{PEOPLE}{SIGNATURE}encoding x\n\nsubject\n\nbody\n").as_bytes()).unwrap();
        assert_eq!(object.payload, format!("{TREE}{parent}{PEOPLE}encoding x\n\nsubject\n\nbody\n").as_bytes());
        assert_eq!(object.signature.unwrap(), b"-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n");
        assert_eq!(
            (object.author.as_str(), object.committed, object.subject.as_str()),
            ("Ada <ada@example.org>", 1_700_000_001, "subject")
        );
        assert_eq!(object.parents, [CommitId([0xab; 20])]);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let twice = Object::parse(format!("{TREE}{PEOPLE}{SIGNATURE}{SIGNATURE}\nx\n").as_bytes());
        assert_eq!(twice, Err(BadObject::TwoSignatures));
        let other = SIGNATURE.replace("gpgsig", "gpgsig-sha256");
        assert_eq!(Object::parse(format!("{TREE}{PEOPLE}{other}\nx\n").as_bytes()), Err(BadObject::OtherHash));
        assert_eq!(Object::parse(format!("{TREE}{PEOPLE}{SIGNATURE}{other}\nx\n").as_bytes()), Err(BadObject::OtherHash));
        let huge = format!("gpgsig {}\n", "x".repeat(SIGNATURE_LIMIT));
        assert_eq!(Object::parse(format!("{TREE}{PEOPLE}{huge}\nx\n").as_bytes()), Err(BadObject::SignatureTooLarge));
        assert_eq!(Object::parse(&vec![b'x'; COMMIT_LIMIT + 1]), Err(BadObject::TooLarge));
        let parent = format!("parent {}\n", "ab".repeat(20));
        for malformed in [
            format!("{TREE}{PEOPLE}{parent}\nx"),
            format!("{TREE}{PEOPLE}{PEOPLE}\nx"),
            format!("{TREE}{SIGNATURE}{PEOPLE}\nx"),
            format!("{TREE}{PEOPLE} folded\n\nx"),
            format!("{TREE}{PEOPLE}nul \0\n\nx"),
            format!("{TREE}{PEOPLE}"),
            format!("{PEOPLE}\nx"),
            " \n\n".to_owned(),
            "\n\n".to_owned(),
        ] {
            assert_eq!(Object::parse(malformed.as_bytes()), Err(BadObject::Malformed), "{malformed:?}");
        }
    }
}
