//! Patterns: of principals, as OpenSSH matches them (ssh_config(5), PATTERNS), and of paths.

/// Whether `text` matches `pattern`: `*` stands for any characters, `?` for one. Time is at most the product of both lengths.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    wild(&pattern, &text, |part| *part == '*', |part, c| *part == '?' || part == c)
}

/// Whether `text` matches one of `patterns`, and none of those that begin with `!`.
pub(super) fn matches_list<'a>(patterns: impl IntoIterator<Item = &'a str>, text: &str) -> bool {
    let mut found = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(not) if matches(not, text) => return false,
            Some(_) => {}
            None => found |= matches(pattern, text),
        }
    }
    found
}

/// Whether a path is one that `glob` means: `**` stands for any folders, `*` and `?` stay within a name. `folder/**` means what is below
/// `folder`, and `folder` itself, which a link or a file may replace.
pub(super) fn matches_path(glob: &str, path: &str) -> bool {
    let (glob, path): (Vec<&str>, Vec<&str>) = (glob.split('/').collect(), path.split('/').collect());
    wild(&glob, &path, |part| *part == "**", |part, name| matches(part, name))
}

/// What is wrong with a glob, and what to write.
pub fn bad_glob(glob: &str) -> Option<&'static str> {
    let part = |bad: &str| glob.split('/').any(|part| part == bad);
    if glob.ends_with('/') {
        return Some("write `folder/**` for all that is below a folder");
    }
    let wrong = part("") || part(".") || part("..") || glob.contains('\\') || glob.chars().any(char::is_control);
    (wrong || glob.starts_with('!')).then_some("write a path from the top of the repository, such as `machines/storage/**` or `fleet.yaml`")
}

/// Goes back only to the last star: what earlier ones stand for may as well be as short as can be.
fn wild<P, T>(pattern: &[P], text: &[T], is_star: impl Fn(&P) -> bool, fits: impl Fn(&P, &T) -> bool) -> bool {
    let (mut at, mut star, mut next) = (0, None, 0);
    while next < text.len() {
        match pattern.get(at) {
            Some(part) if is_star(part) => {
                star = Some((at, next));
                at += 1;
            }
            Some(part) if fits(part, &text[next]) => {
                at += 1;
                next += 1;
            }
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                (at, next) = (place + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(is_star)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_match_as_in_openssh() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*@example.org", "anna@example.org", true),
            ("*@example.org", "anna@example.com", false),
            ("a?na*", "anna@x", true),
            ("a?na", "ana", false),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxcxxb", false),
            ("Anna", "anna", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        assert!(matches_list(["*@example.org", "!eve@*"], "anna@example.org"));
        assert!(!matches_list(["*@example.org", "!eve@*"], "eve@example.org"));
        assert!(!matches_list(["!eve@*"], "anna@example.org"), "no positive one");
        assert!(!matches(&"*a".repeat(20_000), &"a".repeat(19_999)), "and soon");
    }

    #[test]
    fn paths_match_by_folders() {
        for (glob, path, expected) in [
            ("machines/storage/**", "machines/storage/a.yaml", true),
            ("machines/storage/**", "machines/storage/deep/er/a.yaml", true),
            ("machines/storage/**", "machines/storage", true),
            ("machines/storage/**", "machines/storage-2/a.yaml", false),
            ("**/*.yaml", "a.yaml", true),
            ("**/*.yaml", "x/y/a.yaml", true),
            ("machines/*", "machines/a/b", false),
            ("**", "anything/at/all", true),
            ("a/**/b/**/c", "a/b/b/x/c", true),
            ("fleet.yaml", "x/fleet.yaml", false),
        ] {
            assert_eq!(matches_path(glob, path), expected, "{glob} {path}");
        }
        assert!(["", "/a", "a//b", "../a", "a/", "!a", "a\\b"].iter().all(|glob| bad_glob(glob).is_some()));
        assert!(["**", "a/b.yaml", "machines/storage/**"].iter().all(|glob| bad_glob(glob).is_none()));
    }
}
