//! The signer as its operator sees it: a process, a data directory and the command line.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a daemon may take to answer on its socket, and to rebuild its nodes after `unseal`.
const PATIENCE: Duration = Duration::from_secs(60);

/// A signer daemon in a process of its own.
pub struct SignerProcess {
    program: Program,
    dir: PathBuf,
    child: Option<Child>,
    /// How often it was killed.
    pub kills: u32,
}

/// How to start `claviger`: the binary itself, or a program that becomes it when its first argument says so.
#[derive(Clone, Debug)]
pub struct Program {
    exe: PathBuf,
    leading: Vec<String>,
    variables: Vec<(String, String)>,
}

/// What opens every signer of a world. Nobody else's.
pub const PASSPHRASE: &str = "correct horse battery staple";

/// The first argument that makes `claviger-demo` behave as `claviger`.
pub const BECOME_CLAVIGER: &str = "--become-claviger";

impl Program {
    /// A binary that is `claviger`.
    pub fn binary(exe: impl Into<PathBuf>) -> Self {
        Self { exe: exe.into(), leading: Vec::new(), variables: Vec::new() }
    }

    /// This very program, started again as `claviger`.
    pub fn this() -> std::io::Result<Self> {
        let leading = vec![BECOME_CLAVIGER.to_owned()];
        Ok(Self { exe: std::env::current_exe()?, leading, variables: Vec::new() })
    }

    /// The same with one more variable in its environment.
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A command on the data directory `dir`, to be completed.
    pub fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new(&self.exe);
        command.envs(self.variables.iter().cloned()).args(&self.leading).arg("--data-dir").arg(dir);
        command
    }
}

/// A command of `claviger` that did not end with success.
#[derive(Debug, thiserror::Error)]
#[error("claviger {args}: exit {code:?}: {stderr}")]
pub struct CommandFailed {
    /// Its arguments.
    pub args: String,
    /// Its exit code.
    pub code: Option<i32>,
    /// What it said.
    pub stderr: String,
}

impl SignerProcess {
    /// Makes a data directory in `dir` for regtest, without a spending policy, watching the chain backend at `chain_url`.
    pub fn init(program: Program, dir: &Path, chain_url: &str, cookie_file: &Path) -> anyhow::Result<Self> {
        let signer = Self { program, dir: dir.to_owned(), child: None, kills: 0 };
        let quick = ["--kdf-memory-kib", "64", "--kdf-passes", "1"];
        let init = ["init", "--network", "regtest", "--preset", "none", "--allow-root"]; // as whoever runs this
        signer.cli_with_passphrase(&[&init[..], &quick].concat())?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        signer.configure(|config| {
            config["link"]["listen"] = format!("127.0.0.1:{port}").into();
            config["chain"]["url"] = chain_url.into();
            config["chain"]["poll_ms"] = 20.into();
            config["chain"]["start_depth"] = 0.into();
            let chain = config["chain"].as_table_mut().expect("written by init");
            chain.insert("cookie_file".to_owned(), cookie_file.display().to_string().into());
        })?;
        Ok(signer)
    }

    /// Edits `claviger.toml`; takes effect at the next start.
    pub fn configure(&self, edit: impl FnOnce(&mut toml::Table)) -> anyhow::Result<()> {
        let path = self.dir.join("claviger.toml");
        let mut config: toml::Table = toml::from_str(&std::fs::read_to_string(&path)?)?;
        edit(&mut config);
        std::fs::write(&path, toml::to_string(&config)?)?;
        Ok(())
    }

    /// Starts the daemon and unseals it.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.start_sealed()?;
        self.cli_with_passphrase(&["unseal"])?;
        Ok(())
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_sealed(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path())?;
        let mut command = self.program.command(&self.dir);
        command.arg("run").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn()?);
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.cli(&["status"]) {
            let exited = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if exited.is_some() || Instant::now() > deadline {
                anyhow::bail!("the signer did not start: {error}; see {}", self.log_path().display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// SIGKILL: no chance to tidy up.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
            self.kills += 1;
        }
        Ok(())
    }

    /// SIGTERM, and waits for the clean end.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let Some(mut child) = self.child.take() else { return Ok(ExitStatus::from_raw(0)) };
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        Ok(child.wait()?)
    }

    /// Process id of the running daemon.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Adds a node and returns the path of its enrolment bundle.
    pub fn add_node(&self, name: &str, kind: &str) -> anyhow::Result<PathBuf> {
        let bundle = self.dir.join(format!("{name}.bundle"));
        let path = bundle.display().to_string();
        self.cli(&["node", "add", name, "--kind", kind, "--out", &path])?;
        Ok(bundle)
    }

    /// Runs a command with `--json` and returns what it printed.
    pub fn cli(&self, args: &[&str]) -> Result<Value, CommandFailed> {
        self.cli_with_input(args, "")
    }

    /// The same for a command that prints one value on each line.
    pub fn cli_lines(&self, args: &[&str]) -> Result<Vec<Value>, CommandFailed> {
        let stdout = self.printed(args, "")?;
        stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| value(args, line)).collect()
    }

    /// The same with the passphrase on file descriptor 0.
    pub fn cli_with_passphrase(&self, args: &[&str]) -> Result<Value, CommandFailed> {
        let args: Vec<&str> = args.iter().copied().chain(["--passphrase-fd", "0"]).collect();
        self.cli_with_input(&args, PASSPHRASE)
    }

    /// The same with `input` on standard input.
    pub fn cli_with_input(&self, args: &[&str], input: &str) -> Result<Value, CommandFailed> {
        value(args, &self.printed(args, input)?)
    }

    /// Runs a command with `--json` and returns all it said.
    pub fn output(&self, args: &[&str], input: &str) -> std::io::Result<Output> {
        let mut command = self.program.command(&self.dir);
        command.arg("--json").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut pipe = child.stdin.take().expect("stdin is piped");
        // A command that needs no input may have gone already.
        let _ = pipe.write_all(input.as_bytes());
        drop(pipe);
        child.wait_with_output()
    }

    /// What a command that succeeds printed.
    fn printed(&self, args: &[&str], input: &str) -> Result<Vec<u8>, CommandFailed> {
        let failed = |code, stderr| CommandFailed { args: args.join(" "), code, stderr };
        let output = self.output(args, input).map_err(|error| failed(None, error.to_string()))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(failed(output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the daemon logged, over all its starts.
    pub fn log_path(&self) -> PathBuf {
        self.dir.with_extension("log")
    }
}

/// The one JSON value that a command printed; null if it printed nothing.
fn value(args: &[&str], printed: &[u8]) -> Result<Value, CommandFailed> {
    if printed.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(printed).map_err(|error| CommandFailed {
        args: args.join(" "),
        code: Some(0),
        stderr: error.to_string(),
    })
}

impl Drop for SignerProcess {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
