// pm2 start ecosystem.config.cjs, from a checkout after `make setup`; settings come from the environment or configs/miner.yaml.
module.exports = {
  apps: [
    {
      name: "deepfake-miner",
      cwd: __dirname,
      script: ".venv/bin/deepfake-miner",
      args: ["miner"],
      interpreter: "none",
      exec_mode: "fork",
      instances: 1, // one hotkey, one miner
      autorestart: true,
      stop_exit_codes: [0, 2, 4, 6, 7], // a restart helps after 1, 5 and 8 only
      exp_backoff_restart_delay: 1000, // milliseconds, growing
      kill_timeout: 30000, // milliseconds; more than --axon.grace_s (10 s)
      treekill: false, // the miner ends its own helpers
      time: false, // log lines carry their time
      env: { PYTHONUNBUFFERED: "1", DEEPFAKE_MINER_LOGGING__FORMAT: "json" },
    },
  ],
};
