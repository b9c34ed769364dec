# Both services: docker build --target api . and docker build --target room-worker .
# The TypeScript sources run as they are. They stay outside of node_modules, where Node does not strip types.

# Manifests alone, so that a change of the sources does not install anew.
FROM node:24-slim AS manifests
WORKDIR /srv
COPY . .
RUN find . -type f ! -name package.json ! -name 'pnpm-*.yaml' -delete

FROM node:24-slim AS dependencies
WORKDIR /srv
COPY --from=manifests /srv .
RUN npx --yes "$(node -p "require('./package.json').packageManager")" install --prod --frozen-lockfile \
      --filter-prod '{./services/*}...'

FROM node:24-slim AS runtime
WORKDIR /srv
COPY --from=dependencies /srv .
COPY packages packages
COPY services services
RUN ln -s /srv/services/cli/src/main.ts /usr/local/bin/realtime && install -d -o node /srv/.compile-cache
# The sources are stripped of their types once, when the image is built. What is for development alone is refused.
ENV HOST=0.0.0.0 NODE_COMPILE_CACHE=/srv/.compile-cache NODE_ENV=production
USER node
# Each loads all that it is made of, so that the first start finds it stripped as well.
RUN node services/api/src/main.ts --help && node services/room-worker/src/main.ts --help

FROM runtime AS api
EXPOSE 8080 8081
# Not by the agent that all share: with NODE_USE_ENV_PROXY that one would ask a proxy to the outside.
HEALTHCHECK --interval=5s --start-period=20s CMD ["node", "-e", "http.get({ port: process.env.API_OPS_PORT || 8081, host: '127.0.0.1', path: '/livez', agent: false }, ({ statusCode }) => process.exit(statusCode === 200 ? 0 : 1)).on('error', () => process.exit(1))"]
CMD ["node", "services/api/src/main.ts"]

FROM runtime AS room-worker
EXPOSE 8090 8091
HEALTHCHECK --interval=5s --start-period=20s CMD ["node", "-e", "http.get({ port: process.env.WORKER_OPS_PORT || 8091, host: '127.0.0.1', path: '/livez', agent: false }, ({ statusCode }) => process.exit(statusCode === 200 ? 0 : 1)).on('error', () => process.exit(1))"]
CMD ["node", "services/room-worker/src/main.ts"]
