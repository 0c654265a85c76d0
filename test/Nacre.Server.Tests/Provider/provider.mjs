// A real OpenID provider for the tests. Whoever names themselves is let in, with the groups of GROUPS (JSON: {"ann": ["staff"]}).
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const groups = JSON.parse(process.env.GROUPS);
const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'nacre',
      client_secret: process.env.SECRET,
      redirect_uris: [process.env.REDIRECTION],
      grant_types: ['authorization_code', 'urn:ietf:params:oauth:grant-type:device_code'],
      response_types: ['code'],
    }],
    claims: { openid: ['sub'], profile: ['preferred_username', 'groups'] },
    conformIdTokenClaims: process.env.USERINFO === '1', // then the claims are only where the access token opens them
    features: { deviceFlow: { enabled: true } },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, preferred_username: id.replace(/^[^-]*-/, ''), groups: groups[id] ?? [] }),
    }),
    pkce: { required: () => true },
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
process.stdin.on('close', () => process.exit(0)).resume(); // with the test
