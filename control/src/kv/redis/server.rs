//! A connection to the server: commands in batches, and what the server says by itself.

use std::collections::HashSet;
use std::time::Duration;

use redis::{
    Cmd, Connection, ConnectionInfo, ErrorKind, ProtocolVersion, PushKind, RedisError, RedisResult,
    Script, ServerError, Value, cmd,
};

use super::address::Address;
use super::layout::key_of;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest wait for a part of an answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Commands in a batch.
pub(super) const BATCH: usize = 1_024;
/// Keys in a slice of the server's names.
const SLICE: usize = 1_024;
/// Holders of a key that are read: as many as there are slots and tiers, and some.
const MOST_HOLDERS: usize = 1 << 18;
/// Keys that are remembered as changed.
const MOST_CHANGED: usize = 1 << 18;

/// Forgets what an engine hash stands for if nobody holds any of it. Argument: its name.
const PRUNE: &str = "if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then return 0 end \
                     for _, key in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do \
                     if redis.call('EXISTS', key) == 1 then return 0 end end \
                     return redis.call('DEL', KEYS[1])";

/// Answers that speak of the server and not of a command: it is of no use until it has changed.
const UNUSABLE: [&str; 9] = [
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOPERM",
    "OOM",
    "READONLY",
];

/// See the [module](self).
pub(super) struct Server {
    connection: Connection,
    bytes: Vec<u8>,
    commands: usize,
    prune: Script,
    /// Whether the server can say what others change.
    can_tell: bool,
    tells: bool,
    changed: Changed,
    /// Commands that the server refused.
    pub(super) refused: u64,
    /// What it said of the last of them.
    pub(super) refusal: Option<String>,
}

/// What others have changed.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) keys: HashSet<u64>,
    /// More than that.
    pub(super) all: bool,
}

/// Fields of a key; `None` where they cannot be read.
pub(super) type Fields = Option<Vec<Vec<u8>>>;

impl Server {
    pub(super) fn connect(address: &Address) -> RedisResult<Self> {
        let info = address.info()?;
        let (connection, can_tell) = match open(&info, ProtocolVersion::RESP3) {
            Ok(connection) => (connection, true),
            Err(error) if is_too_old(&error) => (open(&info, ProtocolVersion::RESP2)?, false),
            Err(error) => return Err(error),
        };
        connection.set_read_timeout(Some(ANSWER))?;
        connection.set_write_timeout(Some(ANSWER))?;
        let mut server = Self {
            connection,
            bytes: Vec::new(),
            commands: 0,
            prune: Script::new(PRUNE),
            can_tell,
            tells: false,
            changed: Changed::default(),
            refused: 0,
            refusal: None,
        };
        server.load_script()?;
        // Of no consequence, but a server that cannot be written to refuses it.
        server.ask(cmd("DEL").arg("engine:"))?;
        Ok(server)
    }

    /// Adds a command to the batch, and sends the batch when it is full.
    pub(super) fn add(&mut self, command: &Cmd) -> RedisResult<()> {
        command.write_packed_command(&mut self.bytes);
        self.commands += 1;
        if self.commands >= BATCH { self.flush() } else { Ok(()) }
    }

    /// An engine hash of this name may stand for nothing any more.
    pub(super) fn add_prune(&mut self, engine: &str) -> RedisResult<()> {
        self.add(cmd("EVALSHA").arg(self.prune.get_hash()).arg(1).arg(engine))
    }

    /// Sends the batch. What the server refuses is counted.
    pub(super) fn flush(&mut self) -> RedisResult<()> {
        let mut has_lost_script = false;
        let (mut refused, mut refusal) = (0, None);
        self.exchange(|value| {
            if let Value::ServerError(error) = value {
                has_lost_script |= error.code() == "NOSCRIPT";
                refused += 1;
                refusal = Some(error.to_string());
            }
        })?;
        self.refused += refused;
        self.refusal = refusal.or(self.refusal.take());
        if has_lost_script {
            self.load_script()?;
        }
        Ok(())
    }

    /// Has the server say what others change, or not.
    pub(super) fn set_tells(&mut self, tells: bool) -> RedisResult<()> {
        if tells == self.tells || !self.can_tell {
            return Ok(());
        }
        let mut command = cmd("CLIENT");
        command.arg("TRACKING");
        if tells {
            command.arg("ON").arg("BCAST").arg("NOLOOP");
            for digit in 0..10 {
                command.arg("PREFIX").arg(digit);
            }
        } else {
            command.arg("OFF");
        }
        // A server that cannot is asked every once in a while instead.
        self.can_tell = !matches!(self.ask(&command)?, Value::ServerError(_));
        self.tells = tells && self.can_tell;
        Ok(())
    }

    /// Whether it says what others change.
    pub(super) fn tells(&self) -> bool {
        self.tells
    }

    /// Hears what the server has to say by itself.
    pub(super) fn listen(&mut self) -> RedisResult<()> {
        self.ask(&cmd("PING")).map(drop)
    }

    pub(super) fn take_changed(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    /// Names like `pattern`, from a cursor on (0 = the start), and the next cursor (0 = the end). A
    /// name may come twice; one that is there all the time comes.
    pub(super) fn scan(&mut self, cursor: u64, pattern: &str) -> RedisResult<(u64, Vec<Vec<u8>>)> {
        let mut command = cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SLICE);
        let answer = self.ask(&command)?;
        let Value::Array(answer) = answer else { return Err(unexpected("SCAN")) };
        let [cursor, names] = answer.try_into().map_err(|_| unexpected("SCAN"))?;
        let cursor = match &cursor {
            Value::BulkString(text) => std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()),
            _ => None,
        };
        match (cursor, names) {
            (Some(cursor), Value::Array(names)) => {
                Ok((cursor, names.into_iter().filter_map(text).collect()))
            }
            _ => Err(unexpected("SCAN")),
        }
    }

    /// How many fields each key has; `None` where it is no hash, or larger than any entry can be.
    pub(super) fn lengths(&mut self, keys: &[u64]) -> RedisResult<Vec<Option<usize>>> {
        let mut lengths = Vec::with_capacity(keys.len());
        self.each_of("HLEN", keys)?;
        self.exchange(|value| {
            let length = match value {
                Value::Int(length) => usize::try_from(length).ok(),
                _ => None,
            };
            lengths.push(length.filter(|&length| length <= MOST_HOLDERS));
        })?;
        Ok(lengths)
    }

    /// The fields of each key.
    pub(super) fn fields(&mut self, keys: &[u64]) -> RedisResult<Vec<Fields>> {
        let mut all = Vec::with_capacity(keys.len());
        self.each_of("HKEYS", keys)?;
        self.exchange(|value| {
            all.push(match value {
                Value::Array(fields) => Some(fields.into_iter().filter_map(text).collect()),
                _ => None,
            });
        })?;
        Ok(all)
    }

    fn each_of(&mut self, name: &str, keys: &[u64]) -> RedisResult<()> {
        self.flush()?;
        for key in keys {
            let mut command = cmd(name);
            command.arg(key).write_packed_command(&mut self.bytes);
            self.commands += 1;
        }
        Ok(())
    }

    fn load_script(&mut self) -> RedisResult<()> {
        let mut command = cmd("SCRIPT");
        command.arg("LOAD").arg(PRUNE);
        match self.ask(&command)? {
            Value::ServerError(error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// One command by itself.
    fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.flush()?;
        command.write_packed_command(&mut self.bytes);
        self.commands = 1;
        let mut answer = Value::Nil;
        self.exchange(|value| answer = value)?;
        Ok(answer)
    }

    /// Sends what was added and passes on the answer to each command. Ends at the first failure:
    /// the connection is of no use then.
    fn exchange(&mut self, mut each: impl FnMut(Value)) -> RedisResult<()> {
        if self.commands == 0 {
            return Ok(());
        }
        let sent = self.connection.send_packed_command(&self.bytes);
        self.bytes.clear();
        let mut left = std::mem::take(&mut self.commands);
        sent?;
        while left > 0 {
            match self.connection.recv_response()? {
                Value::Push { kind: PushKind::Invalidate, data } => self.changed.note(data),
                Value::Push { .. } => {}
                Value::ServerError(error) if is_unusable(&error) => return Err(error.into()),
                value => {
                    left -= 1;
                    each(value);
                }
            }
        }
        Ok(())
    }
}

impl Changed {
    fn note(&mut self, data: Vec<Value>) {
        for value in data {
            match value {
                Value::Array(names) => {
                    let names = names.into_iter().filter_map(text);
                    self.keys.extend(names.filter_map(|name| key_of(&name)));
                }
                // Everything was deleted.
                _ => self.all = true,
            }
        }
        if self.keys.len() > MOST_CHANGED {
            self.keys.clear();
            self.all = true;
        }
    }
}

fn open(info: &ConnectionInfo, protocol: ProtocolVersion) -> RedisResult<Connection> {
    let settings = info.redis_settings().clone().set_protocol(protocol);
    let info = info.clone().set_redis_settings(settings);
    redis::Client::open(info)?.get_connection_with_timeout(CONNECT)
}

/// Whether a server knows nothing of RESP3.
fn is_too_old(error: &RedisError) -> bool {
    error.kind() == ErrorKind::RESP3NotSupported
        || error.code() == Some("NOPROTO")
        || error.detail().is_some_and(|detail| detail.contains("unknown command"))
}

fn is_unusable(error: &ServerError) -> bool {
    UNUSABLE.contains(&error.code())
}

fn text(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

fn unexpected(command: &'static str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, "an answer of another form than expected", command.into())
        .into()
}
