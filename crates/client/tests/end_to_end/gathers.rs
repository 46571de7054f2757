//! Small writes of a client that is alone with a file: few messages, and nobody sees that they were late.

use crate::cluster::{Cluster, Pace, ROOT, bytes, create as create_with, eventually, in_time};
use pvfs_client::{Client, ClientConfig, CreateOptions, Delegating, File, MemJournal, OpenOptions};
use pvfs_types::{Errno, Ino, SetAttr};
use std::{sync::Arc, time::Duration};

/// What a client leaves to its successors.
#[derive(Clone)]
pub struct Desk(Arc<MemJournal>);

impl Desk {
    /// Of the client of that number.
    pub fn new(client: u8) -> Desk {
        Desk(MemJournal::new([client; 16]))
    }

    /// Connects as the next one of a row of processes.
    pub async fn connect(&self, config: ClientConfig) -> Arc<Client> {
        let estate = Some(self.0.estate());
        Client::connect(ClientConfig { delegations: Delegating::Yes, estate, ..config }).await.unwrap()
    }

    /// A process connects, makes a file, writes `data` to it in small pieces, and is killed.
    pub async fn dies_after_writing(&self, cluster: &Cluster, name: &'static str, data: &[u8]) -> Ino {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (config, desk, data) = (cluster.config(), self.clone(), data.to_vec());
        let writes = runtime.spawn(async move {
            let client = desk.connect(config).await;
            has_lease(&client).await;
            let file = create(&client, name).await;
            write_small(&file, &data).await;
            let ino = file.ino();
            std::mem::forget((client, file));
            ino
        });
        let ino = writes.await.unwrap();
        runtime.shutdown_background();
        ino
    }

    pub fn gathered_bytes(&self) -> usize {
        self.0.gathered().iter().map(|gathered| gathered.bytes.len()).sum()
    }
}

/// A client that gathers, once it has a lease.
pub async fn gathering(cluster: &Cluster) -> (Arc<Client>, Desk) {
    let desk = Desk::new(7);
    let client = desk.connect(cluster.config()).await;
    has_lease(&client).await;
    (client, desk)
}

pub async fn has_lease(client: &Client) {
    let known = async {
        while client.delegation(Ino::ROOT).is_none() {
            client.getattr(&ROOT, Ino::ROOT).await.unwrap();
        }
    };
    in_time(known).await;
}

pub async fn create(client: &Client, name: &str) -> File {
    create_with(client, name, CreateOptions { exclusive: true, ..CreateOptions::default() }).await
}

pub async fn open(client: &Client, ino: Ino, options: OpenOptions) -> File {
    client.open(&ROOT, ino, options).await.unwrap()
}

/// Writes small pieces, one behind the other, until `data` is written.
async fn write_small(file: &File, data: &[u8]) {
    for (n, piece) in data.chunks(100).enumerate() {
        file.write_at(n as u64 * 100, piece.to_vec().into()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_writes_of_who_is_alone_with_a_file_are_sent_in_large_ones() {
    let cluster = Cluster::start(2).await;
    let (client, desk) = gathering(&cluster).await;
    let data = bytes(1, 1_000_000);
    for (name, appends) in [("written", false), ("appended", true)] {
        let file = create(&client, name).await;
        let (iods, mgr) = (cluster.iods_received("write"), cluster.mgr_received_from_clients());
        if appends {
            for (n, piece) in data.chunks(100).enumerate() {
                assert_eq!(file.append(piece.to_vec().into()).await.unwrap(), n as u64 * 100);
            }
        } else {
            write_small(&file, &data).await;
        }
        in_time(file.sync()).await.unwrap();
        let writes = cluster.iods_received("write") - iods;
        assert!(writes <= 1_000_000 / (64 << 10) + 1, "{name}: {writes} messages");
        assert_eq!(file.read_at(0, 1_000_000).await.unwrap(), data, "{name}");
        in_time(file.close()).await.unwrap();
        assert!(
            cluster.mgr_received_from_clients() - mgr <= 20,
            "keep-alives, and what the writes have made"
        );
    }
    assert_eq!(desk.gathered_bytes(), 0);
    in_time(client.shutdown()).await.unwrap();
}

/// The order in which programs that each write every so manyth record of `count` come to it: one may be some ahead of another.
fn in_turn(seed: u64, programs: u64, count: u64) -> Vec<u64> {
    let mut next: Vec<u64> = (0..programs).collect();
    let mut order = Vec::new();
    for byte in &bytes(seed, 100_000) {
        let program = usize::from(*byte) % next.len();
        let least = next.iter().min().copied().unwrap();
        if next[program] < count && next[program] < least + 3 * programs {
            order.push(next[program]);
            next[program] += programs;
        }
    }
    assert_eq!(order.len() as u64, count);
    order
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_several_programs_in_turn_are_sent_in_large_writes() {
    const RECORD: u64 = 47_008;
    let cluster = Cluster::start(4).await;
    let (client, desk) = gathering(&cluster).await;
    for (programs, name) in [(1, "one"), (2, "two"), (3, "three")] {
        let file = create(&client, name).await;
        let data = bytes(programs, 200 * 47_008);
        let before = cluster.iods_received("write");
        for record in in_turn(programs, programs, 200) {
            let at = usize::try_from(record * RECORD).unwrap();
            // As the kernel hands it on where pages are its units.
            let (first, rest) = data[at..at + 47_008].split_at(4096 - at % 4096);
            file.write_at(at as u64, first.to_vec().into()).await.unwrap();
            file.write_at((at + first.len()) as u64, rest.to_vec().into()).await.unwrap();
        }
        in_time(file.sync()).await.unwrap();
        let writes = cluster.iods_received("write") - before;
        println!("{programs}: {writes} messages for {} bytes", data.len());
        assert!(writes < 320, "{programs} programs, {writes} messages");
        assert_eq!(file.read_at(0, 1 << 30).await.unwrap(), data, "{name}");
        in_time(file.close()).await.unwrap();
        assert_eq!(client.getattr(&ROOT, file.ino()).await.unwrap().size, data.len() as u64);
    }
    assert_eq!(desk.gathered_bytes(), 0);
    in_time(client.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_pieces_that_meet_the_last_one_written_stands() {
    let cluster = Cluster::start(2).await;
    let (client, desk) = gathering(&cluster).await;
    let mut random = bytes(5, 10_000).into_iter().map(usize::from);
    let mut random = || random.next().unwrap() * 256 + random.next().unwrap();
    for round in 0..12u64 {
        let file = create(&client, &format!("f{round}")).await;
        let (mut model, mut ends) = (Vec::new(), vec![0]);
        let mut held = 0;
        for step in 0..60u64 {
            // Behind what is there, a little beyond, over it, or behind any piece.
            let end = model.len();
            let at = match random() % 5 {
                0 => end,
                1 => end + random() % 3_000,
                2 => end.saturating_sub(random() % 6_000),
                _ => ends[random() % ends.len()],
            };
            let piece = bytes(round * 1_000 + step, 1 + random() % 2_000);
            model.resize(end.max(at + piece.len()), 0);
            model[at..at + piece.len()].copy_from_slice(&piece);
            ends.push(at + piece.len());
            file.write_at(at as u64, piece.into()).await.unwrap();
            held = held.max(desk.gathered_bytes());
            assert_eq!(file.attr().await.unwrap().size, model.len() as u64, "round {round}, step {step}");
        }
        assert!(held > 0, "round {round}");
        assert_eq!(file.read_at(0, 1 << 20).await.unwrap(), model, "round {round}");
        in_time(file.close()).await.unwrap();
    }
    in_time(client.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_looks_at_the_file_in_whatever_way_finds_what_is_gathered() {
    let mut cluster = Cluster::start(2).await;
    let (a, desk) = gathering(&cluster).await;
    let b = cluster.client().await;
    for round in 0..24u32 {
        let name = format!("f{round}");
        let file = create(&a, &name).await;
        let data = bytes(round.into(), 5_000);
        write_small(&file, &data).await;
        assert!(desk.gathered_bytes() > 0, "round {round}");
        if round % 5 == 4 {
            // The next one knows only what is told again.
            cluster.stop_mgr().await;
            cluster.start_mgr().await;
        }
        let name = crate::cluster::name(&name);
        match round % 4 {
            0 => assert_eq!(in_time(b.lookup(&ROOT, Ino::ROOT, &name)).await.unwrap().size, 5_000),
            1 => assert_eq!(in_time(b.getattr(&ROOT, file.ino())).await.unwrap().size, 5_000),
            2 => {
                let found = in_time(open(&b, file.ino(), OpenOptions::READ)).await;
                assert_eq!(found.read_at(0, 9_000).await.unwrap(), data, "round {round}");
            }
            _ => {
                let access = OpenOptions::READ.access;
                let options = CreateOptions { access, truncate: false, ..CreateOptions::default() };
                let found = in_time(b.create(&ROOT, Ino::ROOT, &name, options)).await.unwrap();
                assert_eq!((found.created, found.attr.size), (false, 5_000));
                assert_eq!(found.file.read_at(0, 9_000).await.unwrap(), data, "round {round}");
            }
        }
        assert_eq!(desk.gathered_bytes(), 0, "round {round}");
        // From now on the other one may have it open.
        let end = bytes(99, 300);
        file.write_at(5_000, end.clone().into()).await.unwrap();
        let theirs = open(&b, file.ino(), OpenOptions::READ).await;
        file.write_at(5_300, end.clone().into()).await.unwrap();
        assert_eq!(theirs.read_at(5_000, 9_000).await.unwrap(), [end.clone(), end].concat(), "round {round}");
    }
    a.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_writer_itself_finds_what_it_has_gathered_in_whatever_way_it_looks() {
    let cluster = Cluster::start(2).await;
    let (client, desk) = gathering(&cluster).await;
    let file = create(&client, "f").await;
    let mut model = bytes(1, 3_000);
    write_small(&file, &model).await;
    assert_eq!(client.getattr(&ROOT, file.ino()).await.unwrap().size, 3_000);
    assert_eq!(file.attr().await.unwrap().size, 3_000);
    assert!(desk.gathered_bytes() > 0, "to know the size nothing need be sent");
    assert_eq!(file.read_at(2_000, 5_000).await.unwrap(), model[2_000..]);
    assert_eq!(desk.gathered_bytes(), 0);

    let piece = bytes(2, 500);
    file.write_at(3_000, piece.clone().into()).await.unwrap();
    file.write_at(1_000, piece.clone().into()).await.unwrap();
    file.write_at(1_500, piece.clone().into()).await.unwrap();
    model.extend_from_slice(&piece);
    model[1_000..1_500].copy_from_slice(&piece);
    model[1_500..2_000].copy_from_slice(&piece);
    assert_eq!(file.read_at(0, 9_000).await.unwrap(), model, "here and there");

    file.write_at(3_500, piece.clone().into()).await.unwrap();
    let half = SetAttr { size: Some(3_600), ..SetAttr::default() };
    assert_eq!(client.setattr(&ROOT, file.ino(), half, None).await.unwrap().size, 3_600);
    model.extend_from_slice(&piece[..100]);
    file.append(piece.clone().into()).await.unwrap();
    model.extend_from_slice(&piece);
    file.punch(3_550, 100).await.unwrap();
    model[3_550..3_650].fill(0);
    let other = create(&client, "copy").await;
    other.write_at(0, piece.clone().into()).await.unwrap();
    file.append(piece.clone().into()).await.unwrap();
    model.extend_from_slice(&piece);
    let len = model.len() as u64;
    assert_eq!(other.copy_from(0, &file, 0, len).await.unwrap(), len);
    assert_eq!(file.read_at(0, 9_000).await.unwrap(), model);
    assert_eq!(other.read_at(0, 9_000).await.unwrap(), model);
    file.append(piece.clone().into()).await.unwrap();
    assert_eq!(file.seek_hole(len + 400).await.unwrap(), len + 500, "no hole before the end");
    in_time(file.close()).await.unwrap();
    assert_eq!(client.getattr(&ROOT, file.ino()).await.unwrap().size, len + 500);
    in_time(client.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gathered_is_sent_within_seconds_also_when_nobody_asks() {
    let cluster = Cluster::start(1).await;
    let (client, desk) = gathering(&cluster).await;
    let file = create(&client, "f").await;
    file.write_at(0, bytes(1, 100).into()).await.unwrap();
    assert_eq!((desk.gathered_bytes(), cluster.iods_received("write")), (100, 0));
    eventually("sent", || desk.gathered_bytes() == 0).await;
    assert_eq!(cluster.iods_received("write"), 1);
    in_time(file.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_sends_what_was_gathered_before_anybody_sees_the_file() {
    let mut cluster = Cluster::start(2).await;
    let b = cluster.client().await;
    for (round, name) in (0..).zip(["f0", "f1", "f2", "f3"]) {
        let desk = Desk::new(round);
        let data = bytes(round.into(), 40_000);
        let ino = desk.dies_after_writing(&cluster, name, &data).await;
        assert!(desk.gathered_bytes() > 0);
        if round % 2 == 1 {
            cluster.stop_mgr().await;
            cluster.start_mgr().await;
        }
        let looking = tokio::spawn({
            let b = Arc::clone(&b);
            async move { open(&b, ino, OpenOptions::READ).await.read_at(0, 90_000).await.unwrap() }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!looking.is_finished(), "round {round}: it waits for the successor");
        let next = desk.connect(cluster.config()).await;
        assert_eq!(next.getattr(&ROOT, ino).await.unwrap().size, 40_000, "round {round}");
        assert_eq!(in_time(looking).await.unwrap(), data, "round {round}");
        assert_eq!(desk.gathered_bytes(), 0);
        in_time(next.shutdown()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_later_is_told_once_to_each_who_could_have_written_it() {
    let cluster = Cluster::start(1).await;
    let (client, _) = gathering(&cluster).await;
    let file = create(&client, "f").await;
    file.write_at(0, bytes(1, 100).into()).await.unwrap();
    in_time(file.sync()).await.unwrap();
    let other = open(&client, file.ino(), OpenOptions::WRITE).await;
    file.write_at(100, bytes(2, 100).into()).await.unwrap();
    cluster.faults().fail_writes();
    assert_eq!(in_time(file.sync()).await.unwrap_err().errno(), Errno::ENOSPC);
    assert_eq!(in_time(other.sync()).await.unwrap_err().errno(), Errno::ENOSPC);
    cluster.faults().heal();
    in_time(file.sync()).await.unwrap();
    in_time(other.close()).await.unwrap();
    assert_eq!(file.attr().await.unwrap().size, 100, "nothing is made up");
    assert_eq!(file.read_at(0, 900).await.unwrap(), bytes(1, 100));
    file.append(bytes(3, 50).into()).await.unwrap();
    assert_eq!(file.read_at(100, 900).await.unwrap(), bytes(3, 50));
    in_time(file.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_a_silent_client_waits_no_longer_than_its_lease() {
    let cluster = Cluster::with_pace(1, Pace { lease_ms: 1_000, keep_alive_ms: 50 }).await;
    let desk = Desk::new(7);
    let ino = desk.dies_after_writing(&cluster, "f", &bytes(1, 500)).await;
    let b = cluster.client().await;
    let theirs = in_time(open(&b, ino, OpenOptions::READ_WRITE)).await;
    assert!(theirs.read_at(0, 900).await.unwrap().is_empty(), "it never came");
    theirs.write_at(0, bytes(2, 50).into()).await.unwrap();
    // It comes back, too late.
    let next = desk.connect(cluster.config()).await;
    eventually("sent", || desk.gathered_bytes() == 0).await;
    assert_eq!(theirs.read_at(0, 900).await.unwrap(), bytes(2, 50), "nothing newer is written over");
    in_time(next.shutdown()).await.unwrap();
}
