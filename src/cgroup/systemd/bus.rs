//! The few methods of org.freedesktop.systemd1.Manager that a scope needs.
//!
//! Every conversation is one connection, runs on the calling thread, and has a time limit. If the bus hangs, the
//! error names the step. The process may clone nothing afterwards: the library may start a thread.

use super::Bus;
use super::properties::{Property, Value};
use anyhow::{Context, Result, anyhow, bail};
use futures_core::Stream;
use rustix::fs::{Mode, OFlags};
use std::cell::Cell;
use std::pin::Pin;
use std::time::Duration;
use zbus::connection::Builder;
use zbus::wire::DynamicType;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath, Variant};

/// The time limit for a whole conversation, including the wait for systemd's job.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time limit for the bus to answer a new connection.
const GREETING: Duration = Duration::from_secs(10);

const SYSTEM: &str = "unix:path=/run/dbus/system_bus_socket";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PATH: &str = "/org/freedesktop/systemd1";

/// Makes the transient unit and waits until it is there. Afterwards `asked` is false if systemd made nothing.
pub fn start(bus: &Bus, unit: &str, properties: &[Property], asked: &mut bool) -> Result<()> {
    talk(bus, async |systemd| {
        let mut jobs = systemd.jobs(unit).await?;
        let job = systemd.start(unit, properties, asked).await?;
        match systemd.wait(&mut jobs, &job).await?.as_str() {
            "done" => Ok(()),
            other => bail!("systemd's job to start it ended as {other:?}"),
        }
    })
}

/// Sets properties of the unit, for as long as the unit exists.
pub fn set(bus: &Bus, unit: &str, properties: &[Property]) -> Result<()> {
    talk(bus, async |systemd| {
        let body = (unit, true, variants(properties)?);
        systemd
            .call("SetUnitProperties", &body)
            .await
            .map(drop)
            .map_err(|error| said("SetUnitProperties", error))
    })
}

/// Moves a process into the unit.
pub fn attach(bus: &Bus, unit: &str, below: &str, pid: i32) -> Result<()> {
    let pid = u32::try_from(pid).context("process id")?;
    talk(bus, async |systemd| {
        let done = systemd.call("AttachProcessesToUnit", &(unit, below, vec![pid])).await;
        done.map(drop).map_err(|error| said("AttachProcessesToUnit", error))
    })
}

/// Kills and stops the unit if it exists and has this description, and waits until it is gone.
pub fn stop(bus: &Bus, unit: &str, description: &str) -> Result<()> {
    talk(bus, async |systemd| {
        if systemd.description(unit).await?.as_deref() != Some(description) {
            return Ok(());
        }
        let mut jobs = systemd.jobs(unit).await?;
        // StopUnit alone asks the processes to end and waits for a minute and a half.
        let _ = systemd.call("KillUnit", &(unit, "all", libc::SIGKILL)).await;
        match systemd.call("StopUnit", &(unit, "replace")).await {
            Err(error) if is(&error, "NoSuchUnit") => return Ok(()),
            reply => {
                let job = job_of(&reply.map_err(|error| said("StopUnit", error))?)?;
                systemd.wait(&mut jobs, &job).await?;
            }
        }
        // This matters only if the unit failed and systemd is too old to forget such units. Otherwise it is gone
        // already.
        let _ = systemd.call("ResetFailedUnit", &(unit,)).await;
        Ok(())
    })
}

struct Systemd<'a> {
    connection: Connection,
    step: &'a Cell<&'static str>,
}

/// Runs one conversation.
fn talk<T>(bus: &Bus, conversation: impl AsyncFnOnce(&Systemd<'_>) -> Result<T>) -> Result<T> {
    let address = match bus {
        Bus::System => SYSTEM,
        Bus::User(address) => address,
    };
    let step = Cell::new("connect");
    zbus::block_on(async {
        let runtime = zruntime::SharedRuntime::current().context("epoll")?;
        let connect =
            async { connection(bus, address)?.build().await.map_err(|error| unreachable(address, &error)) };
        let connection = match runtime.timeout(GREETING, connect).await {
            Ok(connection) => connection?,
            Err(_) => bail!("D-Bus at {address} does not answer ({}s)", GREETING.as_secs()),
        };
        let systemd = Systemd { connection, step: &step };
        match runtime.timeout(PATIENCE, conversation(&systemd)).await {
            Ok(done) => done,
            Err(_) => bail!("no answer from systemd to {} ({}s)", step.get(), PATIENCE.as_secs()),
        }
    })
}

fn connection<'a>(bus: &Bus, address: &'a str) -> Result<Builder<'a>> {
    let builder = Builder::address(address);
    Ok(match bus {
        Bus::System => builder,
        // In a user namespace, the bus sees another id than our own.
        Bus::User(_) => builder.user_id(outer_uid()?),
    })
}

/// Our user id outside our user namespace.
pub fn outer_uid() -> Result<u32> {
    let own = rustix::process::geteuid().as_raw();
    let file = rustix::fs::open("/proc/self/uid_map", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut map = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(file), &mut map).context("/proc/self/uid_map")?;
    let outer = |line: &str| {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u32>);
        let (inside, outside, length) = (fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?);
        own.checked_sub(inside).filter(|offset| *offset < length)?.checked_add(outside)
    };
    Ok(map.lines().find_map(outer).unwrap_or(own))
}

/// Explains why the bus cannot be reached. It avoids the errno's words: engines take "no such file" and "permission
/// denied" for an error of the container's program.
fn unreachable(address: &str, error: &zbus::Error) -> anyhow::Error {
    use std::io::ErrorKind;
    let io = match error {
        zbus::Error::InputOutput(io) => Some(io.kind()),
        zbus::Error::Connection(io, _) => Some(io.kind()),
        _ => None,
    };
    match io {
        Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            anyhow!("nobody listens at {address} (is D-Bus running?)")
        }
        Some(ErrorKind::PermissionDenied) => anyhow!("D-Bus at {address} does not let this user connect"),
        _ => anyhow!("D-Bus at {address}: {error}"),
    }
}

impl Systemd<'_> {
    async fn call<B>(&self, method: &'static str, body: &B) -> zbus::Result<Message>
    where
        B: serde::Serialize + DynamicType,
    {
        self.step.set(method);
        self.connection.call_method(Some(SYSTEMD), PATH, Some(MANAGER), method, body).await
    }

    /// The signals that a job of the unit has ended, from now on.
    async fn jobs(&self, unit: &str) -> Result<MessageStream> {
        self.step.set("AddMatch");
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(SYSTEMD)
            .interface(MANAGER)
            .member("JobRemoved")
            .arg(2, unit)
            .build()
            .map_err(|error| said("AddMatch", error))?;
        MessageStream::for_match_rule(rule, &self.connection, None)
            .await
            .map_err(|error| said("AddMatch", error))
    }

    async fn start(&self, unit: &str, properties: &[Property], asked: &mut bool) -> Result<OwnedObjectPath> {
        // A scope keeps its name for a moment after its last process has ended, and longer if it failed.
        let mut pauses = [5, 20, 50, 100].into_iter();
        loop {
            let none: Vec<(&str, Vec<(&str, Variant<'_>)>)> = vec![];
            *asked = true;
            match self.call("StartTransientUnit", &(unit, "fail", variants(properties)?, none)).await {
                Ok(reply) => return job_of(&reply),
                Err(error) => {
                    // systemd answered with an error, so it made nothing.
                    *asked = !matches!(error, zbus::Error::MethodError(..) | zbus::Error::FDO(_));
                    let pause = pauses.next().filter(|_| is(&error, "UnitExists"));
                    let Some(pause) = pause else { return Err(said("StartTransientUnit", error)) };
                    let _ = self.call("ResetFailedUnit", &(unit,)).await;
                    zruntime::SharedRuntime::current()?.sleep(Duration::from_millis(pause)).await;
                }
            }
        }
    }

    /// Waits until the job has ended, and returns its result.
    async fn wait(&self, jobs: &mut MessageStream, job: &OwnedObjectPath) -> Result<String> {
        self.step.set("the job (JobRemoved)");
        loop {
            let next = std::future::poll_fn(|context| Pin::new(&mut *jobs).poll_next(context)).await;
            let message =
                next.context("D-Bus closed the connection")?.map_err(|error| said("JobRemoved", error))?;
            let body = message.body();
            let (_, removed, _, result): (u32, OwnedObjectPath, String, String) =
                body.deserialize().map_err(|error| said("JobRemoved", error))?;
            if removed == *job {
                return Ok(result);
            }
        }
    }

    /// The unit's description; `None` if there is no such unit.
    async fn description(&self, unit: &str) -> Result<Option<String>> {
        let reply = match self.call("GetUnit", &(unit,)).await {
            Err(error) if is(&error, "NoSuchUnit") => return Ok(None),
            reply => reply.map_err(|error| said("GetUnit", error))?,
        };
        let path = job_of(&reply)?;
        let reply = self
            .connection
            .call_method(
                Some(SYSTEMD),
                path,
                Some("org.freedesktop.DBus.Properties"),
                "Get",
                &("org.freedesktop.systemd1.Unit", "Description"),
            )
            .await;
        // The unit has gone since GetUnit.
        let Ok(reply) = reply else { return Ok(None) };
        let body = reply.body();
        match body.deserialize::<Variant<'_>>().map_err(|error| said("Get", error))? {
            Variant::Str(text) => Ok(Some(text.to_string())),
            other => bail!("Get: Description is {other:?}"),
        }
    }
}

/// The object path in a reply.
fn job_of(reply: &Message) -> Result<OwnedObjectPath> {
    reply.body().deserialize().map_err(|error| said("reply", error))
}

/// Whether systemd answered with this error.
fn is(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(found, ..) if found.as_str().strip_prefix(SYSTEMD) == Some(&format!(".{name}")))
}

/// The error in systemd's own words, without the library's.
fn said(method: &str, error: zbus::Error) -> anyhow::Error {
    match error {
        zbus::Error::MethodError(name, text, _) => {
            let name = name.as_str().rsplit('.').next().unwrap_or_default().to_owned();
            anyhow!("{method}: {} ({name})", text.unwrap_or_default().trim_end_matches('.'))
        }
        other => anyhow!("{method}: {other}"),
    }
}

fn variants(properties: &[Property]) -> Result<Vec<(&str, Variant<'_>)>> {
    properties.iter().map(|(name, value)| Ok((name.as_ref(), variant(value)?))).collect()
}

fn variant(value: &Value) -> Result<Variant<'_>> {
    Ok(match value {
        Value::Bool(value) => Variant::Bool(*value),
        Value::Int32(value) => Variant::I32(*value),
        Value::Uint32(value) => Variant::U32(*value),
        Value::Uint64(value) => Variant::U64(*value),
        Value::Text(text) => Variant::from(text.as_str()),
        Value::Texts(list) => Variant::from(list.iter().map(String::as_str).collect::<Vec<_>>()),
        Value::Bytes(bytes) => Variant::from(bytes),
        Value::Numbers(numbers) => Variant::from(numbers),
        Value::Pairs(pairs) => {
            Variant::from(pairs.iter().map(|(one, two)| (one.as_str(), two.as_str())).collect::<Vec<_>>())
        }
    })
}
