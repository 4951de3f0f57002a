//! Connections under TLS.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A certificate authority's PEM, and a server that it vouches for as `hook.example`.
fn authority() -> (String, ServerConfig) {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["hook.example".to_owned()]).unwrap();
    let leaf = leaf
        .signed_by(&key, &Issuer::from_params(&ca, &ca_key))
        .unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (ca_pem, config)
}

async fn secure_endpoint(config: ServerConfig, router: Router) -> Endpoint {
    let connections = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counter = Arc::clone(&connections);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let (acceptor, router) = (acceptor.clone(), router.clone());
            open.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = TowerToHyperService::new(router);
                let server = Builder::new(TokioExecutor::new());
                // The client may close whenever it likes.
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    Endpoint {
        address,
        connections,
        _tasks: tasks,
    }
}

fn client(port: u16, extra_roots_pem: &str) -> HttpTransport {
    let settings = ClientSettings {
        policy: internet(port),
        extra_roots_pem: extra_roots_pem.as_bytes().to_vec(),
        ..ClientSettings::default()
    };
    HttpTransport::new(settings, Names::with("hook.example", &[&["127.0.0.1"]])).unwrap()
}

#[tokio::test]
async fn http2_is_used_where_offered_and_only_with_a_known_authority() {
    let (ca_pem, config) = authority();
    let version =
        post(|request: axum::extract::Request| async move { format!("{:?}", request.version()) });
    let endpoint = secure_endpoint(config, Router::new().route("/", version)).await;
    let port = endpoint.address.port();
    let url = format!("https://hook.example:{port}/");
    let trusting = client(port, &ca_pem);
    assert_eq!(expect_response(&trusting, &url).await.body, "HTTP/2.0");
    let (first, second) = tokio::join!(
        expect_response(&trusting, &url),
        expect_response(&trusting, &url)
    );
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(endpoint.connections(), 1, "streams of one connection");
    let stranger = client(port, "");
    expect_error(&stranger, &url, TransportErrorKind::Tls).await;
}

#[tokio::test]
async fn a_name_that_the_certificate_lacks_is_refused() {
    let (ca_pem, config) = authority();
    let endpoint = secure_endpoint(config, Router::new()).await;
    let port = endpoint.address.port();
    let url = format!("https://127.0.0.1:{port}/");
    expect_error(&client(port, &ca_pem), &url, TransportErrorKind::Tls).await;
}

#[tokio::test]
async fn a_handshake_that_hangs_ends_with_the_connect_timeout() {
    // SS-8
    let silent = Endpoint::raw(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    });
    let silent = silent.await;
    let settings = ClientSettings {
        policy: Policy {
            allow_loopback: true,
            ..Policy::default()
        },
        connect_timeout: SHORT,
        ..ClientSettings::default()
    };
    let transport = HttpTransport::new(settings, Arc::new(Names::default())).unwrap();
    let url = silent.url("/").replace("http:", "https:");
    expect_error(&transport, &url, TransportErrorKind::Connect).await;
}
