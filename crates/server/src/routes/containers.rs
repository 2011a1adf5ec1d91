//! Containers.

use std::time::Duration;

use api::ApiVersion;
use api::container::{CommitResponse, Config, CpuStats, CreateBody, Stats, UpdateBody};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use engine::{
    AttachRequest, Attached, ByteStream, CommitRequest, Container, Containers, CreateRequest,
    ListOptions, LogStream, LogsRequest, RemoveRequest, WaitCondition,
};
use futures_util::FutureExt;
use futures_util::stream::{StreamExt, once, unfold};
use http::{HeaderMap, StatusCode};
use stdx::{Context, Error};

use crate::error::Refusal;
use crate::hijack::{self, Splice};
use crate::request::{Json, Query, RequiredJson, Version};
use crate::websocket::{self, Payload};
use crate::{requests, stream, version};

type Outcome = Result<Response, Refusal>;

pub(crate) fn routes(containers: Containers) -> Router {
    Router::new()
        .route("/containers/json", get(list))
        .route("/containers/create", post(create))
        .route("/containers/prune", post(prune))
        .route("/containers/{name}/json", get(inspect))
        .route("/containers/{name}/start", post(start))
        .route("/containers/{name}/stop", post(stop))
        .route("/containers/{name}/restart", post(restart))
        .route("/containers/{name}/kill", post(kill))
        .route("/containers/{name}/pause", post(pause))
        .route("/containers/{name}/unpause", post(unpause))
        .route("/containers/{name}/rename", post(rename))
        .route("/containers/{name}/resize", post(resize))
        .route("/containers/{name}/update", post(update))
        .route("/containers/{name}/wait", post(wait))
        .route("/containers/{name}/attach", post(attach))
        .route("/containers/{name}/attach/ws", get(attach_by_websocket))
        .route("/containers/{name}/logs", get(logs))
        .route("/containers/{name}/top", get(top))
        .route("/containers/{name}/stats", get(stats))
        .route("/containers/{name}/changes", get(changes))
        .route("/containers/{name}/export", get(export))
        .route("/commit", post(commit))
        .route("/containers/{name}", axum::routing::delete(remove))
        .route("/containers/{name}/{alias}", axum::routing::delete(remove_linked))
        .with_state(containers)
}

async fn list(
    State(containers): State<Containers>,
    Version(version): Version,
    query: Query,
) -> Outcome {
    let options = ListOptions {
        all: query.flag("all"),
        limit: query
            .number("limit")?
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| *limit > 0),
        size: query.flag("size"),
        filters: query.filters()?,
    };
    let mut list = stream::List::default();
    let show = |mut summary| {
        version::summary(&mut summary, version);
        list.add(&summary);
    };
    containers.each(options, show).await?;
    Ok(list.answer())
}

async fn create(
    State(containers): State<Containers>,
    Version(version): Version,
    query: Query,
    RequiredJson(mut body): RequiredJson<CreateBody>,
) -> Outcome {
    if body.config == Config::default() {
        return Err(Error::invalid("config cannot be empty in order to create a container").into());
    }
    let warnings = requests::create(&mut body, version)?;
    let platform = query.text("platform").filter(|_| version >= ApiVersion::new(1, 41));
    let read_only_binds = requests::read_only_binds(version);
    let request = CreateRequest { name: query.text("name"), platform, body, read_only_binds };
    let mut created = containers.create(request).await?;
    created.warnings.extend(warnings);
    Ok(stream::json(StatusCode::CREATED, &created))
}

async fn prune(State(containers): State<Containers>, query: Query) -> Outcome {
    Ok(stream::ok(&containers.prune(query.filters()?).await?))
}

async fn inspect(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    Version(version): Version,
    query: Query,
) -> Outcome {
    let mut inspect = containers.find(&name)?.inspect(query.flag("size")).await?;
    version::inspect(&mut inspect, version);
    Ok(stream::ok(&inspect))
}

async fn start(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    query: Query,
) -> Outcome {
    let container = containers.find(&name)?;
    match query.get("checkpoint") {
        None => container.start().await?,
        Some(checkpoint) => {
            let directory = query.get("checkpoint-dir").unwrap_or_default();
            container.start_from(&name, directory, checkpoint).await?;
        }
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn stop(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    Version(version): Version,
    query: Query,
) -> Outcome {
    containers.find(&name)?.stop(stop_signal(&query, version), query.number("t")?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn restart(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    Version(version): Version,
    query: Query,
) -> Outcome {
    containers.find(&name)?.restart(stop_signal(&query, version), query.number("t")?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Since 1.42, who stops says by which signal.
fn stop_signal(query: &Query, version: ApiVersion) -> Option<&str> {
    query.get("signal").filter(|_| version >= ApiVersion::new(1, 42))
}

async fn kill(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    query: Query,
) -> Outcome {
    let words = || format!("cannot kill container: {name}");
    let container = containers.find(&name).context(words)?;
    container.kill(query.get("signal")).await.context(words)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn pause(State(containers): State<Containers>, Path(name): Path<String>) -> Outcome {
    containers.find(&name)?.pause().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn unpause(State(containers): State<Containers>, Path(name): Path<String>) -> Outcome {
    containers.find(&name)?.unpause().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn rename(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    query: Query,
) -> Outcome {
    containers.find(&name)?.rename(query.get("name").unwrap_or_default()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn resize(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    query: Query,
) -> Outcome {
    let (height, width) = (query.side("h")?, query.side("w")?);
    containers.find(&name)?.resize(height, width).await?;
    Ok(StatusCode::OK.into_response())
}

async fn update(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    Version(version): Version,
    Json(mut body): Json<UpdateBody>,
) -> Outcome {
    requests::update(&mut body, version);
    Ok(stream::ok(&containers.find(&name)?.update(body).await?))
}

/// The head goes out at once: that is how a client knows that nothing from here on is missed.
async fn wait(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    Version(version): Version,
    query: Query,
) -> Outcome {
    let condition = match query.get("condition").filter(|_| version >= ApiVersion::new(1, 30)) {
        None | Some("not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => return Err(Error::invalid(format!("invalid condition: {other:?}")).into()),
    };
    let waiting = containers.find(&name)?.wait(condition);
    let answer = once(async move { Ok(stream::line(&waiting.done().await)) });
    Ok(stream::followed(stream::bytes("application/json", answer)))
}

async fn attach(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    Version(version): Version,
    query: Query,
    headers: HeaderMap,
) -> Outcome {
    let attached = containers.find(&name)?.attach(attach_request(&query)).await?;
    let content_type = version::output_type(version, attached.tty);
    Ok(hijack::answer(&headers, content_type, splice(attached)))
}

fn attach_request(query: &Query) -> AttachRequest {
    AttachRequest {
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        detach_keys: query.text("detachKeys"),
    }
}

async fn attach_by_websocket(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    Version(version): Version,
    query: Query,
    headers: HeaderMap,
) -> Outcome {
    let container = containers.find(&name)?;
    let accept = websocket::accept(&headers)?;
    let attached = container.attach(attach_request(&query)).await?;
    // Older clients wanted text, whatever it was.
    let old = version < ApiVersion::new(1, 28);
    let payload = if old { Payload::Text } else { Payload::Binary };
    let stream = websocket::join(attached, payload)?;
    Ok(hijack::answer_websocket(&accept, Splice::new(stream)))
}

/// Joins a client to what the engine gave.
pub(crate) fn splice(attached: Attached) -> Splice {
    let mut splice = Splice::new(attached.stream);
    if let Some(log) = attached.replay {
        splice.before =
            unfold(log, |mut log| async move { Some((log.next().await?, log)) }).boxed();
    }
    if let Some(mut keys) = attached.detach {
        splice.filter = Some(Box::new(move |input| keys.feed(input)));
    }
    if let Some(over) = attached.over {
        splice.after = over.wait().boxed();
    }
    splice
}

async fn logs(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    Version(version): Version,
    query: Query,
) -> Outcome {
    let request = LogsRequest {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        since: query.moment_unless_zero("since")?,
        until: query.moment_unless_zero("until")?,
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
        follow: query.flag("follow"),
        tail: query.get("tail").and_then(|lines| lines.parse().ok()),
    };
    if !(request.stdout || request.stderr) {
        return Err(Error::invalid("Bad parameters: you must choose at least one stream").into());
    }
    let log = containers.find(&name)?.logs(request).await?;
    Ok(stream::followed(stream::bytes(version::output_type(version, log.tty), pieces_of_log(log))))
}

fn pieces_of_log(log: LogStream) -> impl futures_util::Stream<Item = stdx::Result<bytes::Bytes>> {
    unfold(log, |mut log| async move { Some((Ok(log.next().await?), log)) })
}

async fn top(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    query: Query,
) -> Outcome {
    Ok(stream::ok(&containers.find(&name)?.top(query.get("ps_args")).await?))
}

/// One sample now (`one-shot`), one with the sample before it (`stream=0`), or one a second.
async fn stats(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    Version(version): Version,
    query: Query,
) -> Outcome {
    let one_shot = query.flag("one-shot") && version >= ApiVersion::new(1, 41);
    let streaming = query.flag_or("stream", true);
    if streaming && one_shot {
        return Err(Error::invalid("cannot have stream=true and one-shot=true").into());
    }
    let container = containers.find(&name)?;
    let first = container.stats().await?;
    let mut samples = Samples { container, last: Some(first.clone()) };
    if !streaming {
        let is_up = first.cpu_stats != CpuStats::default();
        let sample = if one_shot || !is_up { first } else { samples.after_a_second().await? };
        return Ok(stream::ok(&sample));
    }
    let first = stream::line(&first);
    let rest = unfold(samples, |mut samples| async move {
        let sample = samples.after_a_second().await.ok()?;
        Some((Ok(stream::line(&sample)), samples))
    });
    let samples = once(async { Ok(first) }).chain(rest);
    Ok(stream::followed(stream::bytes("application/json", samples)))
}

/// Samples in a row, each with the one before it.
struct Samples {
    container: Container,
    last: Option<Stats>,
}

impl Samples {
    async fn after_a_second(&mut self) -> stdx::Result<Stats> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut sample = self.container.stats().await?;
        if let Some(last) = self.last.replace(sample.clone()) {
            sample.preread = last.read;
            sample.precpu_stats = last.cpu_stats;
        }
        Ok(sample)
    }
}

async fn changes(State(containers): State<Containers>, Path(name): Path<String>) -> Outcome {
    Ok(stream::ok(&containers.find(&name)?.changes().await?))
}

async fn export(State(containers): State<Containers>, Path(name): Path<String>) -> Outcome {
    let archive = containers.find(&name)?.export().await?;
    Ok(stream::bytes("application/octet-stream", pieces(archive)))
}

/// An archive as a stream of bytes.
pub(crate) fn pieces(
    archive: ByteStream,
) -> impl futures_util::Stream<Item = stdx::Result<bytes::Bytes>> {
    unfold(archive, |mut archive| async move { Some((archive.next().await?, archive)) })
}

async fn commit(
    State(containers): State<Containers>,
    query: Query,
    Json(config): Json<Option<Config>>,
) -> Outcome {
    let name = query.get("container");
    let name =
        name.ok_or_else(|| Error::invalid("invalid container name or ID: value is empty"))?;
    let text = |name| query.text(name).unwrap_or_default();
    let request = CommitRequest {
        repository: text("repo"),
        tag: text("tag"),
        author: text("author"),
        message: text("comment"),
        changes: query.all("changes").flat_map(str::lines).map(str::to_owned).collect(),
        pause: query.flag_or("pause", true),
        config: config.filter(|config| *config != Config::default()),
    };
    let id = containers.find(name)?.commit(request).await?;
    Ok(stream::json(StatusCode::CREATED, &CommitResponse { id: id.to_string() }))
}

/// A container by what another one calls it.
async fn remove_linked(
    containers: State<Containers>,
    Path((parent, alias)): Path<(String, String)>,
    query: Query,
) -> Outcome {
    remove(containers, Path(format!("{parent}/{alias}")), query).await
}

async fn remove(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    query: Query,
) -> Outcome {
    let request = RemoveRequest { force: query.flag("force"), volumes: query.flag("v") };
    if query.flag("link") {
        containers.remove_link(&name).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    containers.find(&name)?.remove(request).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
