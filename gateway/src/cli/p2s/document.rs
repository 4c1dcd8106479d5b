//! The configuration file as a document: changed in place, so that comments and layout stay, checked, and put
//! in the old one's place in one step.

use super::super::Failure;
use crate::config::file::{FileError, Locked};
use crate::config::{self, KeyFiles, Loaded};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

/// The file, locked against other such changes until it is dropped. The gateway must not be asked for anything
/// meanwhile: for a resize it waits for this lock.
pub(super) struct Document {
    /// The name that messages say.
    shown: PathBuf,
    file: Locked,
    pub(super) loaded: Loaded,
    edit: DocumentMut,
}

/// A client for the file.
pub(super) struct NewClient<'a> {
    pub(super) name: &'a str,
    pub(super) public_key: String,
    pub(super) preshared_key_file: Option<&'a Path>,
    pub(super) address: &'a [IpAddr],
}

impl Document {
    /// Opens and locks the file; it must be valid.
    pub(super) fn open(shown: &Path) -> Result<Self, Failure> {
        let failed = |error: FileError| failure(shown, &error, Failure::Usage);
        let file = Locked::open(shown).map_err(failed)?;
        let text = file.text().map_err(failed)?;
        let loaded = parse(shown, text.clone())?;
        let edit = text
            .parse()
            .map_err(|error| Failure::Work(format!("{}: {error}", shown.display())))?;
        Ok(Self {
            shown: shown.to_owned(),
            file,
            loaded,
            edit,
        })
    }

    /// Adds a client behind the others. False if the file has no pool.
    pub(super) fn add(&mut self, client: &NewClient<'_>) -> bool {
        let Some(pool) = pool(&mut self.edit) else {
            return false;
        };
        let indent = indent_of(pool);
        if pool.get("client").is_some_and(Item::is_array) {
            let mut table = InlineTable::new();
            fill(&mut table, client);
            if let Some(list) = pool.get_mut("client").and_then(Item::as_array_mut) {
                list.push(Value::InlineTable(table));
            }
            return true;
        }
        let mut table = Table::new();
        fill(&mut table, client);
        for (mut key, _) in table.iter_mut() {
            key.leaf_decor_mut().set_prefix(indent.clone());
        }
        table.decor_mut().set_prefix(format!("\n{indent}"));
        if let Some(list) = pool
            .get_mut("client")
            .and_then(Item::as_array_of_tables_mut)
        {
            list.push(table);
        } else {
            let mut list = ArrayOfTables::new();
            list.push(table);
            pool.insert("client", Item::ArrayOfTables(list));
        }
        true
    }

    /// Takes the client of this name out. False if there is none.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let Some(clients) = pool(&mut self.edit).and_then(|pool| pool.get_mut("client")) else {
            return false;
        };
        let is_it = |item: Option<&Item>| item.and_then(Item::as_str) == Some(name);
        if let Some(list) = clients.as_array_of_tables_mut() {
            let place = list.iter().position(|client| is_it(client.get("name")));
            return place.map(|place| list.remove(place)).is_some();
        }
        let Some(list) = clients.as_array_mut() else {
            return false;
        };
        let place = list.iter().position(|client| {
            let table = client.as_inline_table();
            table.and_then(|t| t.get("name")).and_then(Value::as_str) == Some(name)
        });
        place.map(|place| list.remove(place)).is_some()
    }

    /// Checks the changed file and puts it in the place of the old one, with its owner and mode.
    pub(super) fn save(mut self) -> Result<Loaded, Failure> {
        let text = self.edit.to_string();
        let loaded = parse(&self.shown, text.clone())?;
        let failed = |error: FileError| failure(&self.shown, &error, Failure::Work);
        self.file.replace(&text).map_err(failed)?;
        Ok(loaded)
    }
}

/// A lock that another holds is no fault of the request's.
fn failure(shown: &Path, error: &FileError, kind: fn(String) -> Failure) -> Failure {
    let said = format!("{}: {error}", shown.display());
    match error {
        FileError::Busy => Failure::Work(said),
        _ => kind(said),
    }
}

fn parse(shown: &Path, text: String) -> Result<Loaded, Failure> {
    // Relative paths begin where they do for the gateway, which is given the same name.
    let directory = shown.parent().unwrap_or(Path::new(""));
    let parsed = config::parse(shown, text, directory, KeyFiles::Checked);
    parsed.map_err(|report| config::LoadError::Wrong(report).into())
}

/// `[vpn.point_to_site]`, however it is written.
fn pool(edit: &mut DocumentMut) -> Option<&mut dyn TableLike> {
    let vpn = edit.get_mut("vpn")?.as_table_like_mut()?;
    vpn.get_mut("point_to_site")?.as_table_like_mut()
}

/// How far the last client's header is indented.
fn indent_of(pool: &dyn TableLike) -> String {
    let clients = pool.get("client").and_then(Item::as_array_of_tables);
    let last = clients.and_then(|clients| clients.iter().last());
    let prefix = last.and_then(|client| client.decor().prefix()?.as_str());
    let line = prefix.and_then(|prefix| prefix.rsplit('\n').next());
    line.filter(|line| line.chars().all(|c| c == ' ' || c == '\t'))
        .unwrap_or_default()
        .to_owned()
}

fn fill(table: &mut dyn TableLike, client: &NewClient<'_>) {
    let text = |text: &str| Item::Value(Value::from(text));
    table.insert("name", text(client.name));
    table.insert("public_key", text(&client.public_key));
    if let Some(file) = client.preshared_key_file {
        table.insert("preshared_key_file", text(&file.to_string_lossy()));
    }
    let address = match client.address {
        [one] => text(&one.to_string()),
        all => {
            let all = all.iter().map(ToString::to_string);
            Item::Value(Value::Array(all.collect()))
        }
    };
    table.insert("address", address);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    const KEY: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

    fn directory(clients: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let key = crypto::key::PrivateKey::generate().unwrap();
        let file = directory.path().join("vpn.key");
        fs::write(&file, key.to_base64().as_bytes()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let path = directory.path().join("vng.toml");
        let text = format!(
            r#"# The head.
[vnet]
name          = "lab"    # with a name
address_space = ["10.1.0.0/16"]
address       = ["10.1.255.4/27"]

[vpn]
sku              = "VpnGw1"
private_key_file = "vpn.key"

[vpn.point_to_site]   # clients
{clients}
[failover]
hold_down = "1s"   # the tail
"#
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        (directory, path)
    }

    fn client<'a>(name: &'a str, address: &'a [IpAddr]) -> NewClient<'a> {
        NewClient {
            name,
            public_key: KEY.to_owned(),
            preshared_key_file: None,
            address,
        }
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_client_comes_and_goes_and_the_rest_of_the_file_stays_byte_for_byte() {
        for pool in [
            "address_pool = [\"172.31.0.0/24\"]\n",
            "address_pool = [\"172.31.0.0/24\"]\n\n  # The first.\n  [[vpn.point_to_site.client]]\n  name = \"a\"\n  \
             public_key = \"gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=\"\n  address = \"172.31.0.9\"\n",
        ] {
            let (_directory, path) = directory(pool);
            let before = fs::read_to_string(&path).unwrap();
            let mut document = Document::open(&path).unwrap();
            let address = addresses(&["172.31.0.2"]);
            assert!(document.add(&client("laptop", &address)));
            let loaded = document.save().unwrap();
            let with = fs::read_to_string(&path).unwrap();
            let clients = loaded.config.vpn.unwrap().point_to_site.unwrap().clients;
            let laptop = clients.last().unwrap();
            assert_eq!(
                (laptop.name.as_str(), &laptop.address),
                ("laptop", &address)
            );
            let mut lines: Vec<&str> = with.lines().collect();
            let indent = if pool.contains("  [[") { "  " } else { "" };
            let at = lines.iter().position(|l| l.contains("\"laptop\"")).unwrap() - 1;
            let added = [
                format!("{indent}[[vpn.point_to_site.client]]"),
                format!("{indent}name = \"laptop\""),
                format!("{indent}public_key = \"{KEY}\""),
                format!("{indent}address = \"172.31.0.2\""),
            ];
            assert_eq!(lines[at..at + 4], added, "{with}");
            lines.drain(at - 1..at + 4);
            assert_eq!(lines, before.lines().collect::<Vec<_>>());
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);

            let mut document = Document::open(&path).unwrap();
            assert!(!document.remove("phone"));
            assert!(document.remove("laptop"));
            document.save().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), before);
        }
    }

    #[test]
    fn clients_in_one_line_are_added_and_removed_as_well() {
        let (_directory, path) = directory(
            "address_pool = [\"172.31.0.0/24\", \"fd00:31::/64\"]\nclient = [{ name = \"a\", public_key = \
             \"gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=\", address = \"172.31.0.9\" }]\n",
        );
        let before = fs::read_to_string(&path).unwrap();
        let mut document = Document::open(&path).unwrap();
        let address = addresses(&["172.31.0.2", "fd00:31::2"]);
        assert!(document.add(&client("laptop", &address)));
        document.save().unwrap();
        let mut document = Document::open(&path).unwrap();
        let vpn = document.loaded.config.vpn.clone().unwrap();
        assert_eq!(vpn.point_to_site.unwrap().clients[1].address, address);
        assert!(document.remove("laptop"));
        document.save().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }

    #[test]
    fn a_file_that_would_not_be_valid_is_not_written() {
        let (_directory, path) = directory("address_pool = [\"172.31.0.0/24\"]\n");
        let before = fs::read_to_string(&path).unwrap();
        let mut document = Document::open(&path).unwrap();
        assert!(document.add(&client("laptop", &addresses(&["10.9.9.9"]))));
        assert!(matches!(document.save(), Err(Failure::Said(2))));
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }
}
