//! Owns the keys that one process makes for itself on its first start, and the files they are in.
//!
//! It must never print a key nor replace one. The surprise: a key's file is written whole under
//! another name and then linked, so that a crash leaves either no key or a complete one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use runtime::clock::Entropy;
use runtime::secret::{ExposeSecret, Sealer, SecretString};

/// The operator's key, which every request may carry.
const OPERATOR_FILE: &str = "operator.key";
/// The keys that secrets are sealed with, one a line, the newest first.
const SECRETS_FILE: &str = "secrets.key";
/// The longest file that is read as keys.
const FILE_BYTES_MAX: u64 = 64 * 1_024;

/// The folder that the keys are in.
#[derive(Debug)]
pub(crate) struct Keyring {
    dir: PathBuf,
}

impl Keyring {
    /// The keyring in `dir`, which is made where it is missing, for its owner alone.
    ///
    /// # Errors
    /// Where the folder cannot be made.
    pub(crate) fn in_dir(dir: &Path) -> anyhow::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(dir)
            .with_context(|| format!("data folder {}", dir.display()))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Where the operator's key is in `dir`.
    pub(crate) fn operator_path(dir: &Path) -> PathBuf {
        dir.join(OPERATOR_FILE)
    }

    /// The operator's key, made where there is none.
    ///
    /// # Errors
    /// Where its file cannot be read or written.
    pub(crate) fn operator(&self, entropy: &Entropy) -> anyhow::Result<SecretString> {
        let path = Self::operator_path(&self.dir);
        let texts = self.read_or_make(&path, || Ok(new_operator_key(entropy)))?;
        texts
            .into_iter()
            .next()
            .with_context(|| format!("{}: has no key", path.display()))
    }

    /// The sealing keys, one made where there is none.
    ///
    /// # Errors
    /// Where their file cannot be read or written.
    pub(crate) fn secrets(&self, entropy: &Entropy) -> anyhow::Result<Vec<SecretString>> {
        self.read_or_make(&self.dir.join(SECRETS_FILE), || {
            Ok(Sealer::generate("first", entropy)?)
        })
    }

    fn read_or_make(
        &self,
        path: &Path,
        make: impl FnOnce() -> anyhow::Result<SecretString>,
    ) -> anyhow::Result<Vec<SecretString>> {
        if !path.exists() {
            self.write(path, &make()?)
                .with_context(|| path.display().to_string())?;
        }
        read(path)
    }

    fn write(&self, path: &Path, key: &SecretString) -> std::io::Result<()> {
        let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        writeln!(file, "{}", key.expose_secret())?;
        file.sync_all()?;
        // Unlike a rename, a link never replaces what another process has made meanwhile.
        let linked = match fs::hard_link(&unfinished, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        };
        fs::remove_file(&unfinished)?;
        linked?;
        File::open(&self.dir)?.sync_all()
    }
}

/// Reads the keys in a file, one a line.
///
/// # Errors
/// Where it cannot be read or is far too large.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<SecretString>> {
    let named = || path.display().to_string();
    let bytes = fs::metadata(path).with_context(named)?.len();
    anyhow::ensure!(
        bytes <= FILE_BYTES_MAX,
        "{}: is not a file of keys",
        path.display()
    );
    let text = fs::read_to_string(path).with_context(named)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(SecretString::from).collect())
}

/// A new operator's key: 256 random bits.
pub(crate) fn new_operator_key(entropy: &Entropy) -> SecretString {
    let mut text = String::from("op_");
    for _ in 0..4 {
        text.push_str(&format!("{:016x}", entropy.u64()));
    }
    SecretString::from(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("data");
        let entropy = Entropy::system();
        let ring = Keyring::in_dir(&dir).unwrap();
        let operator = ring.operator(&entropy).unwrap();
        let sealing = ring.secrets(&entropy).unwrap();
        assert!(Sealer::parse(&sealing).is_ok());
        assert_eq!(operator.expose_secret().len(), 3 + 64);
        let again = Keyring::in_dir(&dir).unwrap();
        assert_eq!(
            again.operator(&entropy).unwrap().expose_secret(),
            operator.expose_secret()
        );
        assert_eq!(
            again
                .secrets(&entropy)
                .unwrap()
                .first()
                .unwrap()
                .expose_secret(),
            sealing.first().unwrap().expose_secret()
        );
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(
                entry.metadata().unwrap().permissions().mode() & 0o777,
                0o600
            );
            names.push(entry.file_name().into_string().unwrap());
        }
        names.sort();
        assert_eq!(names, [OPERATOR_FILE, SECRETS_FILE]);
        assert_eq!(
            fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn a_key_that_another_process_made_meanwhile_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::in_dir(dir.path()).unwrap();
        let path = dir.path().join(OPERATOR_FILE);
        ring.write(&path, &SecretString::from("first")).unwrap();
        ring.write(&path, &SecretString::from("second")).unwrap();
        assert_eq!(
            read(&path).unwrap().first().unwrap().expose_secret(),
            "first"
        );
    }
}
