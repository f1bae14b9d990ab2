//! Which files and TCP ports stay within reach (Landlock): those that the signer's configuration names.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::Enforced;
use crate::config::Config;

/// What name resolution, certificates and the count of cores are read from. Directories, as files in them are replaced.
const SYSTEM: [&str; 9] = [
    "/etc",
    "/proc",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/usr/share/ca-certificates",
    "/dev/urandom",
];

/// What a confined signer reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Directories in which it reads, writes, makes and removes files.
    pub writes: Vec<PathBuf>,
    /// Files and directories that it reads.
    pub reads: Vec<PathBuf>,
    /// TCP ports that it listens on; 0 is any that the system picks.
    pub listens: Vec<u16>,
    /// TCP ports that it connects to.
    pub connects: Vec<u16>,
}

impl Reach {
    /// That of a signer with its data in `data_dir` and this configuration.
    pub fn of(data_dir: &Path, config: &Config) -> Self {
        let around = |file: &Path| file.parent().map(Path::to_owned);
        let counter = Some(&config.rollback.counter_file).filter(|file| !file.as_os_str().is_empty());
        // bitcoind writes another cookie file whenever it starts, and CAs are replaced.
        let authorities = config.lightspark.listen.map(|_| config.lightspark.api_ca_file.as_path());
        let credentials = [config.chain.cookie_file.as_deref(), config.chain.password_file.as_deref(), authorities];
        let doors = [Some(config.link.listen), config.lnd.listen, config.lightspark.listen];
        Self {
            writes: std::iter::once(data_dir.to_owned()).chain(counter.and_then(|file| around(file))).collect(),
            reads: SYSTEM
                .iter()
                .map(PathBuf::from)
                .chain(credentials.into_iter().flatten().filter_map(around))
                .chain(std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from))
                .collect(),
            listens: doors.into_iter().flatten().map(|address| address.port()).collect(),
            connects: config.dials(),
        }
    }

    /// Confines this thread, and those that it starts, to what is named here. Nothing widens it again.
    pub(super) fn confine(&self) -> Enforced {
        match self.restrict() {
            Ok(RulesetStatus::FullyEnforced) => Enforced::Whole,
            Ok(RulesetStatus::PartiallyEnforced) => {
                Enforced::Partly("this kernel knows a part of Landlock only".to_owned())
            }
            Ok(RulesetStatus::NotEnforced) => Enforced::No("this kernel has no Landlock".to_owned()),
            Err(error) => Enforced::No(error.to_string()),
        }
    }

    fn restrict(&self) -> Result<RulesetStatus, RulesetError> {
        let all = AccessFs::from_all(ABI::V6);
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)?
            .handle_access(AccessNet::from_all(ABI::V6))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .add_rules(path_beneath_rules(&self.writes, all & !AccessFs::Execute))?
            .add_rules(path_beneath_rules(&self.reads, AccessFs::from_read(ABI::V6) & !AccessFs::Execute))?
            .add_rules(self.listens.iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::BindTcp))))?
            .add_rules(
                self.connects.iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp))),
            )?;
        Ok(ruleset.restrict_self()?.ruleset)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // what fails may panic

    use std::fs;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::harden::tests::in_own_process;

    #[test]
    fn a_signers_reach_is_what_its_configuration_names() {
        let mut config = Config::new(bitcoin::Network::Regtest);
        config.chain.url = "http://backend.example:8332/wallet".to_owned();
        config.chain.cookie_file = Some("/var/lib/bitcoind/.cookie".into());
        config.rollback.counter_file = "/counters/claviger".into();
        config.lnd.listen = Some("127.0.0.1:10019".parse().unwrap());
        let reach = Reach::of(Path::new("/var/lib/claviger"), &config);
        assert_eq!(reach.writes, [Path::new("/var/lib/claviger"), Path::new("/counters")]);
        assert!(reach.reads.contains(&PathBuf::from("/var/lib/bitcoind")));
        assert_eq!((reach.listens, reach.connects), (vec![7700, 10019], vec![8332]));

        config.lightspark.listen = Some("127.0.0.1:8443".parse().unwrap());
        config.lightspark.public_url = "https://hooks.example.com/ln".to_owned();
        config.lightspark.api_ca_file = "/srv/authorities/ca.pem".into();
        let reach = Reach::of(Path::new("/var/lib/claviger"), &config);
        assert!(reach.reads.contains(&PathBuf::from("/srv/authorities")));
        assert_eq!((reach.listens, reach.connects), (vec![7700, 10019, 8443], vec![8332, 443, 443, 8443]));
    }

    #[test]
    fn files_and_ports_out_of_reach_are_refused_and_those_within_are_not() {
        in_own_process("harden::landlock::tests::child_is_confined");
    }

    #[test]
    #[ignore = "run in its own process by the test above"]
    fn child_is_confined() {
        let home = tempfile::tempdir().unwrap();
        let [data, other] = ["data", "other"].map(|name| home.path().join(name));
        for dir in [&data, &other] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("file"), b"before").unwrap();
        }
        let [known, unknown] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let reach = Reach {
            writes: vec![data.clone()],
            reads: vec!["/etc".into()],
            listens: vec![0],
            connects: vec![port(&known)],
        };
        let enforced = reach.confine();
        if let Enforced::No(why) = &enforced {
            assert!(std::env::var_os("CI").is_none(), "{why}");
            eprintln!("!!! NOT CHECKED: {why}");
            return;
        }

        let refused = |what: &str, done: std::io::Result<()>| {
            assert_eq!(done.unwrap_err().kind(), ErrorKind::PermissionDenied, "{what}");
        };
        refused("reading", fs::read(other.join("file")).map(drop));
        refused("writing", fs::write(other.join("new"), b"x"));
        refused("listing", fs::read_dir("/").map(drop));
        refused("moving out", fs::rename(data.join("file"), other.join("moved")));
        refused("removing", fs::remove_file(other.join("file")));
        refused("writing what is only read", fs::write("/etc/claviger-test", b"x"));
        refused("running a program", std::process::Command::new("/bin/true").status().map(drop));

        fs::write(data.join("new"), b"x").unwrap();
        fs::rename(data.join("new"), data.join("file")).unwrap();
        assert_eq!(fs::read(data.join("file")).unwrap(), b"x");
        fs::read("/etc/hosts").unwrap();
        fs::remove_file(data.join("file")).unwrap();

        TcpStream::connect(known.local_addr().unwrap()).unwrap();
        TcpListener::bind("127.0.0.1:0").unwrap();
        if enforced == Enforced::Whole {
            refused("connecting elsewhere", TcpStream::connect(unknown.local_addr().unwrap()).map(drop));
            let elsewhere = port(&unknown);
            drop(unknown);
            refused("listening elsewhere", TcpListener::bind(("127.0.0.1", elsewhere)).map(drop));
        }
    }
}
