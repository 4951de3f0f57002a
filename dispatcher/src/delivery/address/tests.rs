//! The policy from edge to edge (SS-11).

use super::*;
use proptest::prelude::*;

fn allowed(policy: &Policy, address: &str) -> bool {
    policy.check_ip(address.parse().unwrap()).is_ok()
}

/// First and last address of each refused range, then the neighbours that are allowed.
const EDGES: &str = "
    0.0.0.0 0.255.255.255 1.0.0.0
    10.0.0.0 10.255.255.255 9.255.255.255 11.0.0.0
    100.64.0.0 100.127.255.255 100.63.255.255 100.128.0.0
    127.0.0.0 127.255.255.255 126.255.255.255 128.0.0.0
    169.254.0.0 169.254.255.255 169.253.255.255 169.255.0.0
    172.16.0.0 172.31.255.255 172.15.255.255 172.32.0.0
    192.0.0.0 192.0.0.255 191.255.255.255 192.0.1.0
    192.0.2.0 192.0.2.255 192.0.1.255 192.0.3.0
    192.88.99.0 192.88.99.255 192.88.98.255 192.88.100.0
    192.168.0.0 192.168.255.255 192.167.255.255 192.169.0.0
    198.18.0.0 198.19.255.255 198.17.255.255 198.20.0.0
    198.51.100.0 198.51.100.255 198.51.99.255 198.51.101.0
    203.0.113.0 203.0.113.255 203.0.112.255 203.0.114.0
    224.0.0.0 239.255.255.255 223.255.255.255
    240.0.0.0 255.255.255.255
    :: 1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2000::
    2001:: 2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff 2000:ffff:: 2001:200::
    2001:db8:: 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff 2001:db7:ffff:: 2001:db9::
    2002:: 2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2001:ffff:: 2003::
    3fff:: 3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff 3ffe:ffff:: 3fff:1000::
    4000:: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 3fff:ffff::
";

#[test]
fn each_range_is_refused_from_edge_to_edge_and_no_further() {
    // SS-11
    let policy = Policy::default();
    for line in EDGES.trim().lines() {
        for (column, address) in line.split_whitespace().enumerate() {
            assert_eq!(allowed(&policy, address), column >= 2, "{address}");
        }
    }
}

#[test]
fn every_disguise_of_an_internal_address_is_refused() {
    let policy = Policy::default();
    for address in [
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2002:7f00:1::",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ] {
        assert!(!allowed(&policy, address), "{address}");
    }
    for address in [
        "8.8.8.8",
        "::ffff:8.8.8.8",
        "2606:4700::1111",
        "2a00:1450:4001::1",
    ] {
        assert!(allowed(&policy, address), "{address}");
    }
}

#[test]
fn nat64_is_judged_by_the_embedded_address_where_asked() {
    let mut policy = Policy {
        nat64: Nat64::Embedded,
        ..Policy::default()
    };
    assert!(allowed(&policy, "64:ff9b::8.8.8.8"));
    assert!(!allowed(&policy, "64:ff9b::127.0.0.1"));
    assert!(!allowed(&policy, "64:ff9b::10.1.2.3"));
    assert!(!allowed(&policy, "64:ff9b:1::8.8.8.8"));
    policy.deny = vec!["8.8.8.0/24".parse().unwrap()];
    assert!(!allowed(&policy, "64:ff9b::8.8.8.8"));
}

#[test]
fn own_ranges_are_added_and_denial_wins() {
    let policy = Policy {
        allow: vec!["10.0.0.0/8".parse().unwrap()],
        deny: vec![
            "10.9.0.0/16".parse().unwrap(),
            "8.8.8.8/32".parse().unwrap(),
        ],
        ..Policy::default()
    };
    assert!(allowed(&policy, "10.1.2.3"));
    assert!(allowed(&policy, "::ffff:10.1.2.3"));
    assert!(!allowed(&policy, "10.9.2.3"));
    assert!(!allowed(&policy, "8.8.8.8"));
    assert!(!allowed(&policy, "192.168.0.1"));
}

fn check(policy: &Policy, url: &str, expected: Result<(), Refusal>) {
    assert_eq!(
        policy.check_url(&Url::parse(url).unwrap()),
        expected,
        "{url}"
    );
}

#[test]
fn a_url_is_refused_for_what_it_says_itself() {
    // SS-1, SS-2, SS-10
    let policy = Policy::default();
    check(&policy, "https://example.com/hook?x=1", Ok(()));
    check(&policy, "https://example.com:443/", Ok(()));
    check(&policy, "https://8.8.8.8/", Ok(()));
    check(&policy, "http://example.com/", Err(Refusal::Scheme));
    check(&policy, "ftp://example.com/", Err(Refusal::Scheme));
    check(&policy, "file:///etc/passwd", Err(Refusal::Host));
    check(&policy, "https://example.com:8443/", Err(Refusal::Port));
    check(&policy, "https://user@example.com/", Err(Refusal::UserInfo));
    check(
        &policy,
        "https://:secret@example.com/",
        Err(Refusal::UserInfo),
    );
    check(&policy, "https://example.com./", Err(Refusal::Host));
    for host in [
        "127.0.0.1",
        "0x7f.1",
        "2130706433",
        "017700000001",
        "127.0.0.1.",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "10.0.0.1",
        "[fd00:ec2::254]",
        "localhost",
        "LOCALHOST",
        "a.localhost",
        "metadata.google.internal",
        "printer.local",
        "kafka.default.svc",
        "kafka.default.svc.cluster.local",
        "router.home.arpa",
    ] {
        check(&policy, &format!("https://{host}/"), Err(Refusal::Address));
    }
    check(&policy, "https://notlocalhost/", Ok(()));
    check(&policy, "https://mylocal.com/", Ok(()));
}

#[test]
fn settings_widen_the_policy_only_as_far_as_they_say() {
    let http = Policy {
        allow_http: true,
        allowed_ports: vec![8443],
        ..Policy::default()
    };
    check(&http, "http://example.com/", Ok(()));
    check(&http, "https://example.com:8443/", Ok(()));
    check(&http, "http://example.com:8080/", Err(Refusal::Port));
    check(&http, "http://localhost/", Err(Refusal::Address));
    let any_port = Policy {
        allowed_ports: vec![0],
        ..Policy::default()
    };
    check(&any_port, "https://example.com:9/", Ok(()));
    check(&any_port, "https://10.0.0.1:9/", Err(Refusal::Address));
    check(&http, "http://127.0.0.1/", Err(Refusal::Address));
    let laptop = Policy {
        allow_loopback: true,
        ..Policy::default()
    };
    check(&laptop, "http://127.0.0.1:3000/", Ok(()));
    check(&laptop, "http://localhost:3000/", Ok(()));
    check(&laptop, "http://[::1]:3000/", Ok(()));
    check(&laptop, "http://example.com/", Err(Refusal::Scheme));
    check(&laptop, "https://10.0.0.1/", Err(Refusal::Address));
    check(&laptop, "https://0.0.0.0/", Err(Refusal::Address));
    let named = Policy {
        allow_names: vec!["corp.internal".into()],
        ..Policy::default()
    };
    check(&named, "https://crm.corp.internal/", Ok(()));
    check(
        &named,
        "https://metadata.google.internal/",
        Err(Refusal::Address),
    );
}

#[test]
fn refusals_name_no_address() {
    // SS-7
    assert_eq!(
        Refusal::Address.to_string(),
        "destination address is not allowed"
    );
    assert_eq!(
        LookupError::from(Refusal::Address).to_string(),
        "destination address is not allowed"
    );
}

#[derive(Debug)]
struct Silent;

#[async_trait]
impl Resolve for Silent {
    async fn resolve(&self, _name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn localhost_needs_no_resolver_and_is_vetted_all_the_same() {
    let mut policy = Policy {
        allow_loopback: true,
        ..Policy::default()
    };
    let lookup = async |policy: &Policy| {
        let vetted =
            VettedResolver::new(Arc::new(Silent), Arc::new(policy.clone()), LOOKUP_TIMEOUT);
        vetted.lookup("localhost").await
    };
    assert_eq!(lookup(&policy).await.unwrap().len(), 2);
    policy.deny = vec!["127.0.0.0/8".parse().unwrap()];
    let error = lookup(&policy).await.unwrap_err();
    assert!(
        matches!(error, LookupError::Refused(Refusal::Address)),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_resolver_is_given_up_in_time() {
    // SS-8
    const WAIT: std::time::Duration = std::time::Duration::from_secs(3);
    let started = tokio::time::Instant::now();
    let vetted = VettedResolver::new(Arc::new(Silent), Arc::default(), WAIT);
    let error = vetted.lookup("example.com").await.unwrap_err();
    assert!(
        matches!(error, LookupError::Resolve(ResolveError::Timeout)),
        "{error:?}"
    );
    assert_eq!(started.elapsed(), WAIT);
}

proptest! {
    #[test]
    fn a_mapped_address_is_judged_as_the_address_in_it(bits: u32, loopback: bool) {
        // SS-11
        let policy = Policy {
            allow_loopback: loopback,
            allow: vec!["172.16.0.0/16".parse().unwrap()],
            deny: vec!["64.0.0.0/4".parse().unwrap()],
            ..Policy::default()
        };
        let plain = Ipv4Addr::from_bits(bits);
        prop_assert_eq!(
            policy.check_ip(plain.into()),
            policy.check_ip(plain.to_ipv6_mapped().into())
        );
    }

    #[test]
    fn no_url_makes_the_check_panic(text in "(https?://)?.*") {
        if let Ok(url) = Url::parse(&text) {
            let verdict = Policy::default().check_url(&url);
            prop_assert!(verdict.is_err() || url.scheme() == "https");
        }
    }
}
