//! A server of several models whose weights do not fit into memory together. Each line of a client,
//! `MODEL n1 n2 …`, is answered by one line, `OK y1 y2 …` or `ERR why`. It starts on a free port,
//! asks itself from many clients at once, and verifies every answer and every byte counted.
//!
//! `cargo run -p plimsoll-cache --example server`

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use plimsoll_cache::{Budget, Cache, Cpu, Model};
use plimsoll_events::{Event, Kind, Sink, Stream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Lets tensors be views of the cache's memory. Without it they are copies.
#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

type Failure = Box<dyn Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

const MODELS: u32 = 6;
/// Models for which the budget has room.
const ROOM: u64 = 2;
const INPUTS: usize = 64;
const INNER: usize = 2048;
const CLIENTS: u32 = 12;
const REQUESTS: u32 = 25;
/// How long a request may wait for its model.
const PATIENCE: Duration = Duration::from_secs(30);
/// A longer line is refused, and its client with it.
const LONGEST_LINE: u64 = 64 << 10;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut models = HashMap::new();
    for number in 0..MODELS {
        let model = Model::open(write_weights(folder.path(), number)?)?;
        models.insert(model.name().to_owned(), model);
    }
    let bytes = models.values().map(Model::bytes).max().unwrap_or(0);
    let counts = Arc::new(Counts::default());
    let cache = Cache::builder()
        .ram(Budget::fixed(ROOM * bytes + bytes / 2))
        .stream(Stream::new(Arc::clone(&counts)))
        .build()?;

    let service = Arc::new(Service {
        cache: cache.clone(),
        models,
        patience: PATIENCE,
        longest_wait_us: AtomicU64::new(0),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = watch::channel(());
    let server = tokio::spawn(serve(listener, Arc::clone(&service), stopped));
    let watching = Watching::begin(cache.clone())?;

    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(number, address, Arc::clone(&service)));
    }
    let mut verified = 0;
    while let Some(done) = clients.join_next().await {
        verified += done??;
    }
    impatience(&service).await?;

    // No new connections; those that are there are answered to their end.
    stop.send(())?;
    timeout(PATIENCE, server).await???;
    let most = watching.end()?;
    cache.tell_hits();

    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let usage = cache.usage_of(Cpu).unwrap_or_default();
    println!("answers verified: {verified}");
    println!(
        "hits: {}, loads: {}, evictions: {}",
        of(&counts.hits),
        of(&counts.loads),
        of(&counts.evictions)
    );
    println!(
        "longest wait: {:?}",
        Duration::from_micros(of(&service.longest_wait_us))
    );
    println!("most bytes counted: {most} of {}", usage.budget_bytes);
    if verified != CLIENTS * REQUESTS || of(&counts.evictions) == 0 || most == 0 {
        return Err("not every answer came, or the cache never thrashed".into());
    }
    if most > usage.budget_bytes || usage.pinned_bytes > 0 || cache.residency().waiting > 0 {
        return Err(format!("the budget was exceeded, or something leaked: {usage:?}").into());
    }
    println!("stopped: nothing leased, nobody waiting");
    Ok(())
}

struct Service {
    cache: Cache,
    models: HashMap<String, Model>,
    patience: Duration,
    longest_wait_us: AtomicU64,
}

impl Service {
    /// The answer to a line.
    async fn answer(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let name = words.next().ok_or("an empty line names no model")?;
        let model = self
            .models
            .get(name)
            .ok_or_else(|| format!("no model `{}`", name.escape_debug()))?;
        let inputs = words
            .map(str::parse)
            .collect::<std::result::Result<Vec<f32>, _>>()?;
        if inputs.len() != INPUTS {
            return Err(format!("{} numbers, and {name} takes {INPUTS}", inputs.len()).into());
        }
        let asked = Instant::now();
        // Where the time is up the future is dropped, which gives up its place in the queue.
        let lease = timeout(self.patience, self.cache.lease_async([model]))
            .await
            .map_err(|_| format!("busy: no room for {name} in {:?}", self.patience))??;
        let waited = u64::try_from(asked.elapsed().as_micros())?;
        self.longest_wait_us.fetch_max(waited, Ordering::Relaxed);
        let model = model.clone();
        // Work on tensors is not for the threads that serve sockets. The lease ends with it.
        tokio::task::spawn_blocking(move || {
            let weights = lease.get(&model)?;
            perceive(|name| Ok(weights.tensor(name)?), &inputs)
        })
        .await?
    }
}

/// Accepts clients until it is told to stop, then waits for those that are there.
async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    mut stopped: watch::Receiver<()>,
) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                report(ended?);
                continue;
            }
            _ = stopped.changed() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, Arc::clone(&service), stopped.clone()));
            }
            Err(error) => {
                // The client left, or there are too many open files for the moment.
                eprintln!("cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended?);
    }
    Ok(())
}

fn report(ended: Result<()>) {
    if let Err(error) = ended {
        eprintln!("a connection ended: {error}");
    }
}

/// Answers one client, line by line, until it leaves. When the server stops it finishes the line
/// that it has read, and takes no other.
async fn connection(
    mut stream: TcpStream,
    service: Arc<Service>,
    mut stopped: watch::Receiver<()>,
) -> Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read.take(LONGEST_LINE));
    let mut line = String::new();
    loop {
        line.clear();
        lines.get_mut().set_limit(LONGEST_LINE);
        let got = tokio::select! {
            got = lines.read_line(&mut line) => got?,
            _ = stopped.changed() => return Ok(()),
        };
        if got == 0 {
            return Ok(());
        }
        if !line.ends_with('\n') {
            return Err("a line was cut off, or too long".into());
        }
        let answer = match service.answer(&line).await {
            Ok(numbers) => format!("OK {numbers}\n"),
            Err(why) => format!("ERR {}\n", why.to_string().escape_debug()),
        };
        write.write_all(answer.as_bytes()).await?;
    }
}

/// Two layers: `second · relu(first · inputs)`, as text that gives the same numbers back.
fn perceive(weight: impl Fn(&str) -> Result<Tensor>, inputs: &[f32]) -> Result<String> {
    let inputs = Tensor::new(inputs, &Device::Cpu)?.unsqueeze(1)?;
    let inner = weight("first.weight")?.matmul(&inputs)?.relu()?;
    let outputs = weight("second.weight")?.matmul(&inner)?.flatten_all()?;
    let outputs: Vec<String> = outputs
        .to_vec1::<f32>()?
        .iter()
        .map(f32::to_string)
        .collect();
    Ok(outputs.join(" "))
}

/// Asks for one model after another, and verifies the answers by weights that candle read.
async fn client(number: u32, address: SocketAddr, service: Arc<Service>) -> Result<u32> {
    let mut stream = TcpStream::connect(address).await?;
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    let mut verified = 0;
    for request in 0..REQUESTS {
        let name = format!("net-{}", (number * 5 + request * (1 + number % 3)) % MODELS);
        let inputs: Vec<f32> = (0..INPUTS)
            .map(|at| ((at as u32 + number + request) % 9) as f32 / 4.0 - 1.0)
            .collect();
        let words: Vec<String> = inputs.iter().map(f32::to_string).collect();
        write
            .write_all(format!("{name} {}\n", words.join(" ")).as_bytes())
            .await?;
        let answer = lines.next_line().await?.ok_or("the server left")?;
        let path = service.models[&name].path().to_owned();
        let own = tokio::task::spawn_blocking(move || {
            let weights = candle_core::safetensors::load(path, &Device::Cpu)?;
            perceive(|name| Ok(weights[name].clone()), &inputs)
        });
        if answer != format!("OK {}", own.await??) {
            return Err(format!("client {number}, request {request} to {name}: {answer}").into());
        }
        verified += 1;
    }
    write.write_all(b"no-such-model 1 2 3\n").await?;
    let answer = lines.next_line().await?.ok_or("the server left")?;
    if !answer.starts_with("ERR no model") {
        return Err(format!("a model that does not exist answered {answer}").into());
    }
    Ok(verified)
}

/// A request that is given up keeps nothing, and the next one is served.
async fn impatience(service: &Service) -> Result<()> {
    let mut models = service.models.values();
    let (Some(one), Some(other), Some(third)) = (models.next(), models.next(), models.next())
    else {
        return Err("three models are needed".into());
    };
    let hurried = Service {
        cache: service.cache.clone(),
        models: service.models.clone(),
        patience: Duration::from_millis(50),
        longest_wait_us: AtomicU64::new(0),
    };
    let line = format!("{}{}", third.name(), " 1".repeat(INPUTS));
    let all = service.cache.lease_async([one, other]).await?;
    match hurried.answer(&line).await {
        Err(why) if why.to_string().starts_with("busy") => println!("refused in time: {why}"),
        other => return Err(format!("a full cache answered {other:?}").into()),
    }
    drop(all);
    service.answer(&line).await?;
    Ok(())
}

/// Looks all the time how many bytes count.
struct Watching {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Watching {
    fn begin(cache: Cache) -> Result<Watching> {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::Builder::new().spawn(move || {
            let mut most = 0;
            while !until.load(Ordering::Relaxed) {
                let ram = &cache.residency().tiers[0];
                most = most.max(ram.used_bytes);
                std::thread::sleep(Duration::from_micros(200));
            }
            most
        })?;
        Ok(Watching { stop, thread })
    }

    fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| "the watching thread panicked".into())
    }
}

/// Counts what the cache does.
#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    loads: AtomicU64,
    evictions: AtomicU64,
}

impl Sink for Counts {
    fn event(&self, event: &Event) {
        let (counter, by) = match &event.kind {
            Kind::Tally(tally) => (&self.hits, tally.hits.values().sum()),
            Kind::Load(load) if load.error.is_none() => (&self.loads, 1),
            Kind::Evict(_) => (&self.evictions, 1),
            _ => return,
        };
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

/// A file of small weights, others for each model.
fn write_weights(folder: &Path, number: u32) -> Result<PathBuf> {
    let mut state = number + 1;
    let mut tensor = |rows: usize, columns: usize| {
        let values = (0..rows * columns).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        });
        Tensor::from_vec(values.collect::<Vec<f32>>(), (rows, columns), &Device::Cpu)
    };
    let tensors = HashMap::from([
        ("first.weight", tensor(INNER, INPUTS)?),
        ("second.weight", tensor(8, INNER)?),
    ]);
    let path = folder.join(format!("net-{number}.safetensors"));
    safetensors::serialize_to_file(&tensors, None, &path)?;
    Ok(path)
}
