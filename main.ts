console.log("hypercore");
