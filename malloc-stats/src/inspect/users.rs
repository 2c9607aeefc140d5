//! Names of users, as `/etc/passwd` has them.

use std::collections::HashMap;

/// The names of this system's users by number. Users from elsewhere (LDAP and the like) stay
/// numbers: asking the resolver would load foreign code into this process.
#[derive(Debug, Default)]
pub struct Users(HashMap<u32, String>);

impl Users {
    /// Those of `/etc/passwd`; none where it cannot be read.
    #[must_use]
    pub fn read() -> Users {
        let text = std::fs::read("/etc/passwd").unwrap_or_default();
        Users::parse(&String::from_utf8_lossy(&text))
    }

    /// `passwd(5)`: the first name of a number counts, and lines that are malformed are left out.
    fn parse(text: &str) -> Users {
        let mut names = HashMap::new();
        for line in text.lines() {
            let mut fields = line.split(':');
            let (name, uid) = (fields.next(), fields.nth(1));
            if let (Some(name), Some(Ok(uid))) = (name, uid.map(str::parse))
                && !name.is_empty()
            {
                names.entry(uid).or_insert_with(|| name.to_owned());
            }
        }
        Users(names)
    }

    /// The name, where there is one.
    #[must_use]
    pub fn name(&self, uid: u32) -> Option<&str> {
        self.0.get(&uid).map(String::as_str)
    }

    /// The name, or the number.
    #[must_use]
    pub fn name_or_number(&self, uid: u32) -> String {
        self.name(uid)
            .map_or_else(|| uid.to_string(), str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_number_counts_and_the_rest_is_a_number() {
        let users = Users::parse("root:x:0:0::/:/bin/sh\ntoor:x:0:0\n:x:5:5\nbad\nx:y:z\n+::::\n");
        assert_eq!(users.name(0), Some("root"));
        assert_eq!(users.name_or_number(5), "5");
        assert_eq!(users.0.len(), 1);
    }
}
