//! Images.

use api::{ApiVersion, json};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use futures_util::TryStreamExt;
use http::{HeaderMap, StatusCode};
use image::{Credentials, Filters, Images, ImportRequest, ListOptions, LoadOptions, RemoveOptions};
use oci::{Platform, Reference};
use stdx::{Error, Result};
use tokio::sync::mpsc;

use crate::error::{self, Refusal};
use crate::request::{self, Query, Version};
use crate::{stream, version};

type Outcome = Result<Response, Refusal>;

/// Progress messages that may wait for a slow client.
const MESSAGES: usize = 64;

pub(crate) fn routes(images: Images) -> Router {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(create))
        .route("/images/load", post(load))
        .route("/images/get", get(save))
        .route("/images/prune", post(prune))
        .route("/images/search", get(search))
        // Names contain slashes, so the verb is found from behind.
        .route("/images/{*path}", delete(remove).get(show).post(change))
        .with_state(images)
}

async fn list(State(images): State<Images>, Version(version): Version, query: Query) -> Outcome {
    let mut filters = query.filter_lists()?;
    // `docker images NAME` of clients before 1.25.
    filters.entry("reference".to_owned()).or_default().extend(query.text("filter"));
    filters.retain(|_, values| !values.is_empty());
    let options = ListOptions {
        all: query.flag("all"),
        shared_size: query.flag("shared-size"),
        filters: Filters::for_list(&filters)?,
    };
    let mut list = tokiox::blocking(move || images.list(&options)).await?;
    version::images(&mut list, version);
    Ok(stream::ok(&list))
}

/// What `GET /images/{name}/…` shows of an image.
async fn show(
    State(images): State<Images>,
    Path(path): Path<String>,
    Version(version): Version,
    query: Query,
) -> Outcome {
    let (name, verb) = path.rsplit_once('/').unwrap_or(("", &path));
    match verb {
        "json" => {
            let image = images.inspect(name)?;
            let wanted = query.get("platform").filter(|_| version >= ApiVersion::new(1, 49));
            if let Some(wanted) = wanted.map(platform).transpose()? {
                if query.flag("manifests") {
                    return Err(Error::invalid(
                        "conflicting options: manifests and platform options cannot both be set",
                    )
                    .into());
                }
                is_for(&image, name, &wanted)?;
            }
            Ok(version::image(&image, version))
        }
        "history" => Ok(stream::ok(&images.history(name)?)),
        "get" => archive(&images, vec![name.to_owned()], &query, version).await,
        "attestations" => Err(Error::not_implemented("attestations are not supported yet").into()),
        _ => Ok(error::page_not_found()),
    }
}

async fn change(State(images): State<Images>, Path(path): Path<String>, query: Query) -> Outcome {
    let (name, verb) = path.rsplit_once('/').unwrap_or(("", &path));
    match verb {
        "tag" => {
            let name = name.to_owned();
            let target = with_tag(query.get("repo").unwrap_or_default(), query.get("tag"));
            tokiox::blocking(move || images.tag(&name, &target)).await?;
            Ok(StatusCode::CREATED.into_response())
        }
        "push" => Err(Error::not_implemented("pushing images is not supported yet").into()),
        _ => Ok(error::page_not_found()),
    }
}

/// `busybox` and `1.36` make `busybox:1.36`; a digest joins by its own sign.
fn with_tag(name: &str, tag: Option<&str>) -> String {
    match tag {
        None => name.to_owned(),
        Some(digest) if digest.starts_with("sha256:") => format!("{name}@{digest}"),
        Some(tag) => format!("{name}:{tag}"),
    }
}

async fn remove(State(images): State<Images>, Path(name): Path<String>, query: Query) -> Outcome {
    let options = RemoveOptions { force: query.flag("force"), no_prune: query.flag("noprune") };
    Ok(stream::ok(&images.remove(&name, options).await?))
}

async fn prune(State(images): State<Images>, query: Query) -> Outcome {
    Ok(stream::ok(&images.prune(&Filters::for_prune(&query.filter_lists()?)?).await?))
}

async fn search() -> Outcome {
    Err(Error::not_implemented("searching a registry is not supported yet").into())
}

/// `docker pull`, and `docker import` with the archive in the body.
async fn create(
    State(images): State<Images>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Outcome {
    let platform = query.get("platform").map(platform).transpose()?;
    let (sender, messages) = mpsc::channel(MESSAGES);
    let Some(source) = query.get("fromSrc") else {
        let reference = wanted(query.get("fromImage").unwrap_or_default(), query.get("tag"))?;
        let credentials = request::registry_auth(&headers).map(credentials);
        let pull = async move {
            let platform = platform.as_ref();
            match reference.is_name_only() {
                true => images.pull_all(&reference, platform, credentials, sender).await,
                false => images.pull(&reference, platform, credentials, sender).await.map(drop),
            }
        };
        return stream::progress(pull, messages).await;
    };
    if source != "-" {
        return Err(Error::not_implemented("importing from a URL is not supported yet").into());
    }
    let text = |name| query.text(name).unwrap_or_default();
    let request = ImportRequest {
        repository: text("repo"),
        tag: text("tag"),
        message: text("message"),
        changes: query.all("changes").map(str::to_owned).collect(),
        platform,
    };
    let import = async move { images.import(reader(body), request, sender).await.map(drop) };
    stream::progress(import, messages).await
}

/// A tag or digest beside the name counts for more than one in it. Without either all tags are meant, which old clients
/// say by a colon at the end.
fn wanted(name: &str, tag: Option<&str>) -> Result<Reference> {
    let name = Reference::parse_normalized(name.strip_suffix(':').unwrap_or(name))?;
    match tag.filter(|tag| !tag.is_empty()) {
        None => Ok(name),
        Some(tag) => match tag.parse() {
            Ok(digest) => Ok(name.with_digest(digest)),
            Err(_) => name.with_tag(tag),
        },
    }
}

async fn load(
    State(images): State<Images>,
    Version(version): Version,
    query: Query,
    body: Body,
) -> Outcome {
    let platform = one_platform(&query, version)?;
    let options = LoadOptions { platform, quiet: query.flag("quiet") };
    let (sender, messages) = mpsc::channel(MESSAGES);
    let load = async move { images.load(reader(body), options, sender).await.map(drop) };
    Ok(stream::report(load, messages).await)
}

/// What is to be saved or loaded of an image that is for several platforms. Since 1.48.
fn one_platform(query: &Query, version: ApiVersion) -> Result<Option<Platform>> {
    if version < ApiVersion::new(1, 48) {
        return Ok(None);
    }
    if query.all("platform").count() > 1 {
        return Err(Error::invalid("multiple platform parameters not supported"));
    }
    query.get("platform").filter(|text| !text.is_empty()).map(platform).transpose()
}

fn is_for(image: &api::image::Inspect, name: &str, wanted: &Platform) -> Result<()> {
    let parts = [&image.os, &image.architecture, &image.variant];
    let own: Vec<&str> =
        parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    let own = own.join("/");
    match own.parse::<Platform>() {
        Ok(platform) if !wanted.matches(&platform) => Err(Error::not_found(format!(
            "image with reference {name} was found but its platform ({own}) does not match the specified platform ({wanted})"
        ))),
        _ => Ok(()),
    }
}

/// `linux/arm64`, or since 1.48 `{"os":"linux","architecture":"arm64"}`.
fn platform(text: &str) -> Result<Platform> {
    match text.starts_with('{') {
        false => text.parse(),
        true => json::from_slice(text.as_bytes())
            .map(Platform::normalized)
            .map_err(|cause| Error::invalid("failed to parse platform").caused_by(cause)),
    }
}

/// The body as something that blocks until there is more of it.
fn reader(body: Body) -> impl std::io::Read + Send + 'static {
    image::reader(body.into_data_stream().map_err(std::io::Error::other))
}

fn credentials(auth: api::system::AuthConfig) -> Credentials {
    Credentials {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identity_token,
    }
}

/// `GET /images/get?names=…`, any number of them.
async fn save(State(images): State<Images>, Version(version): Version, query: Query) -> Outcome {
    let names = query.all("names").flat_map(|names| names.split(',')).map(str::to_owned).collect();
    archive(&images, names, &query, version).await
}

async fn archive(
    images: &Images,
    names: Vec<String>,
    query: &Query,
    version: ApiVersion,
) -> Outcome {
    let archive = images.save(names, one_platform(query, version)?).await?;
    Ok(stream::bytes("application/x-tar", archive))
}
